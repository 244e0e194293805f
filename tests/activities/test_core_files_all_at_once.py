"""A project of several compose and env files: the result of merging all of them counts."""

from __future__ import annotations

from dataclasses import replace

import pytest

from activities.core.files import edit_core_project
from komodo.compose.services import profiles
from komodo.files.edit_set import ProjectEdit, ProjectFiles
from model.errors import EditRefused

CORE = "ghcr.io/moghtech/komodo-core"
BASE = (
    f"services:\n  core:\n    image: {CORE}:latest\n    volumes:\n      - ./backups:/backups\n"
    "  periphery:\n    image: ghcr.io/moghtech/komodo-periphery:latest\n"
)


def plan(files: dict[str, str], envs: dict[str, str] | None = None) -> ProjectEdit:
    paths = {f"/opt/k/{name}": text for name, text in files.items()}
    given = {f"/opt/k/{name}": text for name, text in (envs or {}).items()}
    project = ProjectFiles(directory="/opt/k", compose=paths, fills=("/opt/k/.env",))
    read = (*project.fills, *(p for service in ("core", "periphery") for p in project.env_files(service)))
    project = replace(project, envs={path: given[path] for path in read if path in given})
    return edit_core_project(project, target="2.3.2", keys_mount="bind")


def over(*lines: str, service: str = "core") -> dict[str, str]:
    body = "".join(f"    {line}\n" for line in lines)
    return {"compose.yaml": BASE, "compose.override.yaml": f"services:\n  {service}:\n{body}"}


@pytest.mark.parametrize(
    ("files", "why"),
    [
        (over("init: false"), "compose.override.yaml sets init of core"),
        (over("init: ${INIT}"), "compose.override.yaml sets init of core"),
        (over("volumes: !override", "  - ./b:/backups"), "replaces the volumes of core"),
        (over("volumes: !reset []"), "replaces the volumes of core"),
        (over("environment: !reset null", service="periphery"), "replaces the environment of periphery"),
        (over("environment: [PERIPHERY_CORE_PUBLIC_KEYS=]", service="periphery"), "sets PERIPHERY_CORE_PUBLIC_KEYS"),
        (
            {
                "a.yaml": "services:\n  periphery:\n    environment: [PERIPHERY_CORE_PUBLIC_KEY=x]\n",
                "compose.yaml": BASE,
            },
            "from another file",
        ),
        (
            {
                "compose.yaml": BASE.replace("services:", "x-e: &e {PERIPHERY_CORE_PUBLIC_KEY: x}\nservices:")
                + "    environment:\n      <<: *e\n",
            },
            "by a `<<`",
        ),
        (over(f"image: {CORE}:1.19.5"), "exactly one of the project's compose files"),
        (over("environment: {TZ: UTC, KOMODO_TIMEZONE: UTC}"), "two names of one setting"),
        ({"compose.yaml": "include:\n  - core.yaml\n"}, "files that it includes are not edited"),
        ({"compose.yaml": BASE, "b.yaml": "services:\n  core:\n  - x: [\n"}, "b.yaml: line"),
    ],
)
def test_a_value_that_another_file_removes_is_refused(files: dict[str, str], why: str) -> None:
    with pytest.raises(EditRefused) as refused:
        plan(files)
    assert why in refused.value.what
    assert refused.value.hint


@pytest.mark.parametrize(
    ("lines", "folder"),
    [
        (("volumes: ['/srv/keys:/config/keys']",), "/srv/keys"),
        (("volumes: !override", "  - ../keys:/config/keys"), "/opt/keys"),
        (("volumes:", "  - {type: bind, source: ./c, target: /config}",), "/opt/k/c/keys"),
        (("volumes: ['keys:/config/keys']",), ""),
    ],
)  # fmt: skip
def test_keys_that_another_file_mounts_are_found_there(lines: tuple[str, ...], folder: str) -> None:
    for files in (over(*lines), dict(reversed(over(*lines).items())) if "!" not in lines[0] else over(*lines)):
        edits = plan(files)
        after = {e.path: e.after for e in edits.files}
        assert edits.keys_dir == folder
        assert "      - ./backups:/backups\n  periphery:\n" in after["/opt/k/compose.yaml"]


def test_init_of_another_file_is_enough() -> None:
    after = {e.path: e.after for e in plan(over("init: true")).files}
    assert after["/opt/k/compose.yaml"].count("init: true") == 1  # the agent's


@pytest.mark.parametrize(
    "compose",
    [
        f"services:\n  core:\n    image: {CORE}:latest\t# tabbed\n    env_file: core.env\t# tabbed\n",
        f"services:\n  core:\n    image: {CORE}:latest\n    env_file: [core.env]\n    ports: !override ['1:1']\n",
        f"services:\n  core:\n    image: {CORE}:1\n    env_file: core.env\n---\nservices: {{}}\n",
        f"x-e: &e\n  env_file:\n    - path: core.env\nservices:\n  core:\n    <<: *e\n    image: {CORE}:latest\n",
        f"services:\n  b:\n    env_file: core.env\n    image: x\n  core:\n    extends: b\n    image: {CORE}:1\n",
    ],
)
def test_env_files_are_found_in_every_spelling(compose: str) -> None:
    edits = plan({"compose.yaml": compose}, {"core.env": "KOMODO_FIRST_SERVER=x\n"})
    assert edits.first_server_gone == ("KOMODO_FIRST_SERVER",)


@pytest.mark.parametrize(("env", "why"), [("A='open\n", "never closed"), ("TAG=9.0.0\n", "step back")])
def test_a_refused_env_file_is_named(env: str, why: str) -> None:
    compose = f"services:\n  core:\n    image: {CORE}:${{TAG:-latest}}\n"
    with pytest.raises(EditRefused, match=why) as refused:
        plan({"compose.yaml": compose}, {".env": env})
    assert refused.value.what.startswith(("/opt/k/.env: line 1", "/opt/k/compose.yaml: "))


def test_profiles_of_a_service() -> None:
    texts = {
        "/a": "services:\n  core:\n    profiles: [k, l]\n  web:\n    profiles: [w]\n",
        "/b": "a: [",
        "/c": "services:\n",
    }
    assert profiles(texts.values(), "core") == ("k", "l")
    assert profiles(texts.values(), "mongo") == ()


def test_a_raw_env_file_is_not_read_as_an_ordinary_one() -> None:
    compose = f"services:\n  core:\n    image: {CORE}:latest\n    env_file: [{{path: raw.env, format: raw}}]\n"
    assert [e.path for e in plan({"compose.yaml": compose}, {"raw.env": "A='open\n"}).files] == ["/opt/k/compose.yaml"]


def test_variables_of_another_file_are_no_pair() -> None:
    """TZ fills in KOMODO_TIMEZONE here; Core itself is given one name only."""
    compose = (
        f"services:\n  core:\n    image: {CORE}:latest\n    env_file: core.env\n"
        "    environment:\n      KOMODO_TIMEZONE: ${TZ}\n"
    )
    assert plan({"compose.yaml": compose}, {".env": "TZ=UTC\n", "core.env": "KOMODO_HOST=x\n"}).planned()
    with pytest.raises(EditRefused, match="two names"):
        plan({"compose.yaml": compose}, {".env": "A=b\n", "core.env": "TZ=UTC\n"})
