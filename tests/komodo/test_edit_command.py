from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from cli.app import cli
from tests.komodo.edit_compose_cases import CASES

KEY = "MCowBQYDK2VuAyEATZgrjGHeF0KJUe0+n77+qAWOg3YzEzXOmQWaRgO3OGQ="
ED25519 = "MCowBQYDK2VwAyEATZgrjGHeF0KJUe0+n77+qAWOg3YzEzXOmQWaRgO3OGQ="
COMPOSE = """services:
  core:
    image: ghcr.io/moghtech/komodo-core:${KOMODO_TAG:-latest}
    env_file: .env
  periphery:
    image: ghcr.io/moghtech/komodo-periphery:${KOMODO_TAG:-latest}
"""
KEYS = "    volumes: [./keys:/config/keys]\n"
COMPOSE_V2 = COMPOSE.replace("  periphery:\n", f"{KEYS}  periphery:\n") + KEYS
ENV = "KOMODO_TAG=latest\r\nKOMODO_PASSKEY=hunter2\r\nKOMODO_FIRST_SERVER=https://periphery:8120"
CONFIG = 'passkeys = ["hunter2"]\n[secrets]\nA = "hunter2"\n'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "compose.yaml").write_bytes(COMPOSE.encode())
    (tmp_path / ".env").write_bytes(ENV.encode())
    (tmp_path / "periphery.config.toml").write_bytes(CONFIG.encode())
    return tmp_path


def run(*args: object) -> Result:
    return CliRunner().invoke(cli, ["edit", *map(str, args)])


def as_json(*args: object) -> dict[str, Any]:
    result = run(*args, "-o", "json")
    data: dict[str, Any] = json.loads(result.stdout)
    assert data["exit_code"] == result.exit_code
    return data


def test_changes_are_shown_and_nothing_is_written(folder: Path) -> None:
    files = sorted(p for p in folder.iterdir())
    before = {p: p.read_bytes() for p in files}
    result = run("--to", "2.3.2", "--core-public-key", KEY, *files)
    assert result.exit_code == 5, result.output
    assert "+KOMODO_TAG=2.3.2" in result.stdout
    assert "+    image: ghcr.io/moghtech/komodo-core:${KOMODO_TAG:-2.3.2}" in result.stdout
    assert f'+core_public_keys = ["{KEY}"]' in result.stdout
    assert f'+      PERIPHERY_CORE_PUBLIC_KEYS: "{KEY}"' in result.stdout
    assert "latest is frozen at v1" in result.stdout
    assert "hunter2" not in result.output
    assert {p: p.read_bytes() for p in folder.iterdir()} == before


def test_written_files_have_copies_with_the_guides_names(folder: Path) -> None:
    files = sorted(folder.iterdir())
    files[0].chmod(0o640)
    result = run("--to", "v2.3.2", "--core-public-key", KEY, "--write", *files)
    assert result.exit_code == 0, result.output
    assert (folder / ".env").read_bytes().decode() == (
        "KOMODO_TAG=2.3.2\r\nKOMODO_PASSKEY=hunter2\r\n# KOMODO_FIRST_SERVER=https://periphery:8120"
    )
    for name, old in (("compose.yaml", COMPOSE), (".env", ENV), ("periphery.config.toml", CONFIG)):
        assert (folder / f"{name}.bak_v1").read_bytes() == old.encode()
        assert (folder / name).read_bytes() != old.encode()
    assert (folder / ".env").stat().st_mode & 0o777 == 0o640
    assert (folder / ".env.bak_v1").stat().st_mode & 0o777 == 0o640
    assert len(list(folder.iterdir())) == 6, "no temporary file stays"
    again = run("--to", "2.3.2", "--core-public-key", KEY, "--write", *files)
    assert (again.exit_code, len(list(folder.iterdir()))) == (0, 6), again.output


def test_an_older_copy_that_differs_is_kept(folder: Path) -> None:
    (folder / ".env.bak_v1").write_text("older")
    shutil.copy(folder / "compose.yaml", folder / "compose.yaml.bak_v1")
    data = as_json("--to", "2.3.2", "--write", folder / "compose.yaml", folder / ".env")
    assert (folder / ".env.bak_v1").read_text() == "older"
    stamped = Path(data["files"][1]["backup"])
    assert stamped.name.startswith(".env.bak_v1.2")
    assert stamped.read_bytes() == ENV.encode()
    assert data["files"][0]["backup"] == str(folder / "compose.yaml.bak_v1")


@pytest.mark.parametrize(("tag", "suffix"), [("2.0.0", ".bak_v2.0.0"), ("2", ".bak_v2"), ("1.19.5", ".bak_v1")])
def test_copies_are_named_after_the_running_version(folder: Path, tag: str, suffix: str) -> None:
    (folder / ".env").write_text(f"KOMODO_TAG={tag}\n")
    (folder / "compose.yaml").write_text(COMPOSE_V2)
    data = as_json("--to", "2.3.2", "--write", folder / "compose.yaml", folder / ".env")
    assert [f["backup"].rsplit(".bak")[1] for f in data["files"]] == [suffix.removeprefix(".bak")] * 2


def test_nothing_is_written_where_one_file_is_refused(folder: Path) -> None:
    (folder / "periphery.config.toml").write_text("passkeys = changeme\n")
    before = {p: p.read_bytes() for p in folder.iterdir()}
    result = run("--to", "2.3.2", "--core-public-key", KEY, "--write", *sorted(folder.iterdir()))
    assert result.exit_code == 4
    assert "accepts any Core today" in result.output
    assert "Nothing was written" in result.output
    assert {p: p.read_bytes() for p in folder.iterdir()} == before


def test_an_env_file_goes_with_its_compose_file(folder: Path) -> None:
    alone = as_json("--to", "2.3.2", folder / ".env")
    assert alone["files"][0]["status"] == "changed"  # the first server only: whose tag this is stands in compose.yaml
    assert "KOMODO_TAG" not in "".join(alone["files"][0]["reasons"])
    (folder / "compose.yaml").write_text(
        "services:\n  core:\n    build: .\n    image: ghcr.io/moghtech/komodo-core:1\n"
    )
    both = as_json("--to", "2.3.2", folder / "compose.yaml", folder / ".env")
    assert [f["status"] for f in both["files"]] == ["refused", "refused"]
    assert "left alone" in both["files"][1]["refused"]


def test_two_projects_are_kept_apart(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "compose.yaml").write_text(COMPOSE_V2)
    (other / ".env").write_text("KOMODO_TAG=2.0.0\nKOMODO_FIRST_SERVER_NAME=Local\n")
    data = as_json("--to", "2.3.2", folder / "compose.yaml", folder / ".env", other / "compose.yaml", other / ".env")
    assert "2.0.0 → " in data["files"][3]["reasons"][0]
    assert len(data["files"][3]["reasons"]) == 1
    assert len(data["files"][1]["reasons"]) == 2


def test_an_env_file_that_was_not_given_is_mentioned(folder: Path) -> None:
    result = run("--to", "2.3.2", folder / "compose.yaml")
    assert (result.exit_code, "name it in this command, too" in result.stderr) == (5, True)
    assert "name it in this command, too" not in run("--to", "2.3.2", folder / "compose.yaml", folder / ".env").stderr


def test_files_of_other_kinds(folder: Path) -> None:
    (folder / "caddy.yaml").write_text("services:\n  caddy:\n    image: caddy\n")
    (folder / "core.config.toml").write_text('title = "Komodo"\n')
    (folder / "README.md").write_text("# hi\n")
    (folder / "latin.env").write_bytes(b"A=\xe4\n")
    nothing = as_json("--to", "2.3.2", folder / "caddy.yaml", folder / "core.config.toml")
    assert (nothing["exit_code"], [f["status"] for f in nothing["files"]]) == (0, ["unchanged", "unchanged"])
    assert as_json("--to", "2.3.2", folder / "README.md")["files"][0]["status"] == "refused"
    latin = run("--to", "2.3.2", folder / "latin.env")
    assert (latin.exit_code, "UTF-8" in latin.output) == (4, True)


def test_a_config_needs_the_key(folder: Path) -> None:
    data = as_json("--to", "2.3.2", folder / "periphery.config.toml")
    assert data["exit_code"] == 4
    assert "--core-public-key" in data["files"][0]["hint"]
    (folder / "periphery.config.toml").write_text(f"core_public_keys = ['{KEY}']\n")
    assert as_json("--to", "2.3.2", folder / "periphery.config.toml")["exit_code"] == 0


@pytest.mark.parametrize(
    ("key", "said"),
    [(ED25519, "Ed25519"), (KEY[:-3], "cut off"), ("", "empty"), ("file:/x", "reference"), ("-----BEGIN", "PEM")],
)
def test_each_wrong_key_has_its_message(folder: Path, key: str, said: str) -> None:
    result = run("--to", "2.3.2", "--core-public-key", key, folder / "periphery.config.toml")
    assert (result.exit_code, said in result.output) == (4, True), result.output


@pytest.mark.parametrize("target", ["2", "2.3", "1.19.5", "latest", "2.3.2-dev"])
def test_a_target_that_is_not_exact_is_a_usage_error(folder: Path, target: str) -> None:
    assert run("--to", target, folder / ".env").exit_code == 2
    assert run("--to", "2.3.2", folder / "none.yaml").exit_code == 2
    assert run("--to", "2.3.2").exit_code == 2


def test_a_link_stays_a_link(folder: Path) -> None:
    real = folder / "real"
    real.mkdir()
    (folder / ".env").rename(real / "komodo.env")
    (folder / ".env").symlink_to(real / "komodo.env")
    assert run("--to", "2.3.2", "--write", folder / "compose.yaml", folder / ".env").exit_code == 0
    assert (folder / ".env").is_symlink()
    assert (real / "komodo.env.bak_v1").read_bytes() == ENV.encode()


def test_every_case_ends_in_one_of_the_three_codes(tmp_path: Path) -> None:
    for i, case in enumerate(CASES.values()):
        file = tmp_path / f"{i}.compose.yaml"
        file.write_bytes(case.text.encode())
        assert run("--to", "2.3.2", file).exit_code in (0, 4, 5)


def test_an_override_file_is_merged_as_compose_does(folder: Path) -> None:
    override = folder / "compose.override.yaml"
    override.write_text("services:\n  core:\n    volumes:\n      - /srv/keys:/config/keys\n")
    assert "compose.override.yaml; name it" in run("--to", "2.3.2", folder / "compose.yaml").output
    shown = as_json("--to", "2.3.2", override, folder / "compose.yaml", folder / ".env")
    assert [f["status"] for f in shown["files"]] == ["unchanged", "changed", "changed"]
    assert shown["files"][1]["diff"].count("/config/keys") == 1  # the agent's
    override.write_text("services:\n  core:\n    init: false\n")
    refused = as_json("--to", "2.3.2", override, folder / "compose.yaml", folder / ".env")
    assert refused["exit_code"] == 4
    assert "sets init of core" in refused["files"][1]["refused"]
