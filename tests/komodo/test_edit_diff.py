from __future__ import annotations

from pathlib import Path

import pytest

from komodo.compose.edit import edit_compose
from komodo.files.detect import kind_of
from komodo.files.diff import LIMIT, masked_diff
from komodo.files.env import edit_env
from komodo.files.periphery_toml import edit_periphery_config

KEY = "MCowBQYDK2VuAyEATZgrjGHeF0KJUe0+n77+qAWOg3YzEzXOmQWaRgO3OGQ="
SECRET = "hunter2"
COMPOSE = """services:
  core:
    image: ghcr.io/moghtech/komodo-core:latest
    environment:
      KOMODO_PASSKEY: hunter2
      - odd hunter2
      KOMODO_DATABASE_URI: mongodb://u:hunter2@mongo:27017
      lower_secret: hunter2
      # KOMODO_JWT_SECRET: hunter2
      # the password is hunter2
      # see https://u:hunter2@example.com
      "QUOTED": hunter2
      TEXT: |
        hunter2
    labels:
      - traefik.auth=u:hunter2
    command: [--password, hunter2]
    volumes:
      - ./b:/backups
    ports:
      - "9120:9120"
"""


@pytest.mark.parametrize("line", [x for x in COMPOSE.splitlines() if SECRET in x])
def test_no_secret_of_a_compose_file_is_shown(line: str) -> None:
    before = f"{line}\n    image: a:1\n{line}\n"
    diff = masked_diff(before, before.replace("a:1", "a:2"), "compose.yaml", "compose")
    assert SECRET not in diff
    assert "+    image: a:2" in diff
    moved = masked_diff(before, f"    image: a:1\n{line} x\n", "compose.yaml", "compose")
    assert SECRET not in moved


def test_what_helps_is_shown() -> None:
    diff = masked_diff(COMPOSE, COMPOSE.replace("latest", "2.3.2"), "compose.yaml", "compose")
    assert diff.startswith("--- compose.yaml\n+++ compose.yaml\n@@ -1,6 +1,6 @@\n")
    assert "-    image: ghcr.io/moghtech/komodo-core:latest\n+    image: ghcr.io/moghtech/komodo-core:2.3.2\n" in diff
    assert masked_diff(COMPOSE, COMPOSE, "x", "compose") == ""


@pytest.mark.parametrize(
    "line",
    ["A=hunter2", "export A='hunter2'", "# KOMODO_PASSKEY=hunter2", "## TOKEN = hunter2", "hunter2", "A: hunter2",
     "# password: hunter2", "  hunter2'"],
)  # fmt: skip
def test_no_secret_of_an_env_file_is_shown(line: str) -> None:
    before = f"{line}\nCOMPOSE_KOMODO_IMAGE_TAG=latest\n{line}\n"
    after = edit_env(before, target="2.3.2", tag_variables=("COMPOSE_KOMODO_IMAGE_TAG",)).text
    diff = masked_diff(before, after, ".env", "env")
    assert SECRET not in diff
    assert "+COMPOSE_KOMODO_IMAGE_TAG=2.3.2" in diff


@pytest.mark.parametrize(
    "line",
    ['passkeys = ["hunter2"]', "# passkeys = ['hunter2']", "x = [\n  'hunter2',\n]", "[secrets]\nA = 'hunter2'",
     "onboarding_key = 'hunter2'", 'core_public_keys = ["hunter2"]', "core_public_keys = 'hunter2, file:/x'"],
)  # fmt: skip
def test_no_secret_of_a_config_is_shown(line: str) -> None:
    before = f"port = 8120\n{line}\n"
    after = edit_periphery_config(before, key=KEY).text
    diff = masked_diff(before, after, "periphery.config.toml", "periphery-config")
    assert SECRET not in diff
    assert KEY in diff


def test_long_diffs_are_cut_and_say_so() -> None:
    before = "".join(f"image: a{i}:1\n" for i in range(2000))
    diff = masked_diff(before, before.replace(":1", ":2"), "x", "compose")
    assert len(diff.encode()) <= LIMIT
    assert "more lines" in diff.splitlines()[-1]


def test_official_diffs_show_the_key_and_no_value(official_file: Path) -> None:
    text = official_file.read_bytes().decode()
    kind = kind_of(official_file.name, text)
    if kind == "compose" and "caddy" not in official_file.name:
        diff = masked_diff(text, edit_compose(text, target="2.3.2", env={}).text, "x", kind)
        assert ":2.3.2" in diff or ":-2.3.2}" in diff
    elif kind == "env":
        diff = masked_diff(
            text, edit_env(text, target="2.3.2", tag_variables=("COMPOSE_KOMODO_IMAGE_TAG",)).text, "x", kind
        )
        assert "a_random_passkey" not in diff
    elif kind == "periphery-config":
        diff = masked_diff(text, edit_periphery_config(text, key=KEY).text, "x", kind)
        assert f'+core_public_keys = ["{KEY}"]' in diff
    else:
        assert kind == "core-config" or "caddy" in official_file.name


@pytest.mark.parametrize(
    ("name", "text", "kind"),
    [
        ("compose.yaml", "services:\n", "compose"),
        ("stack.yml", "version: '3'\nservices:\n", "compose"),
        ("docker-compose.yml.bak_v1", "services: {}\n", "compose"),
        ("compose.json", '{"services": {}}', "compose"),
        ("x", "services:\n  a:\n", "compose"),
        (".env", "", "env"),
        (".env.prod", "A=b\n", "env"),
        ("komodo.env", "A=b\n", "env"),
        ("periphery.config.toml", "", "periphery-config"),
        ("config.toml", "passkeys = []\n", "periphery-config"),
        ("config.toml", "[database]\naddress = 'x'\n", "core-config"),
        ("core.config.toml", "", "core-config"),
        ("README.md", "# hi\n", "unknown"),
        ("values.yaml", "a: b\n", "unknown"),
        ("x.toml", "[tool.ruff]\n", "unknown"),
    ],
)
def test_files_are_recognised(name: str, text: str, kind: str) -> None:
    assert kind_of(f"/srv/komodo/{name}", text) == kind


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        (f'      - "PERIPHERY_CORE_PUBLIC_KEYS={KEY}"', f'      - "PERIPHERY_CORE_PUBLIC_KEYS={KEY}"'),
        ('      - "PERIPHERY_CORE_PUBLIC_KEYS={core_public_key}"',) * 2,
        ('      - "KOMODO_PASSKEY=hunter2"', '      - "KOMODO_PASSKEY=***"'),
        ("      - 'KOMODO_PASSKEY=hunter2' # mine", "      - 'KOMODO_PASSKEY=***'"),
        ('      - "PERIPHERY_CORE_PUBLIC_KEYS=hunter2"', '      - "PERIPHERY_CORE_PUBLIC_KEYS=***"'),
        ('      - "a=b" "hunter2"', "      - ***"),
    ],
)
def test_a_quoted_entry_of_a_list_shows_its_name(line: str, shown: str) -> None:
    diff = masked_diff("a: 1\n", f"a: 1\n{line}\n", "compose.yaml", "compose")
    assert diff.splitlines()[-1] == f"+{shown}"
