"""Generated sets of compose, env and TOML files: edited once they are what was wanted, edited again nothing changes.

`EDIT_VARIATIONS=20000 pytest tests/komodo/test_edit_variations.py` tries more of them.
"""

# ruff: noqa: E501 - lists of fragments
from __future__ import annotations

import os
import random
import re
import tomllib
from collections import Counter

import pytest

from komodo.files.edit_set import FileEdit
from komodo.files.env import values
from komodo.files.grouping import edit_files
from tests.komodo import edit_oracle as oracle

KEY = "MCowBQYDK2VuAyEATZgrjGHeF0KJUe0+n77+qAWOg3YzEzXOmQWaRgO3OGQ="
OTHER = "MCowBQYDK2VuAyEAaZgrjGHeF0KJUe0+n77+qAWOg3YzEzXOmQWaRgO3OGQ="
PINS = "PERIPHERY_CORE_PUBLIC_KEYS"
COUNT = int(os.environ.get("EDIT_VARIATIONS", "160"))
BLOCKS = 4
"""Tests that share the variations, so that they can run in parallel."""

_TOUCHED = re.compile(
    r"image|init|volumes|keys:|keys$|environment|FIRST_SERVER|PUBLIC_KEY|TAG|CORE_KEY|<<|core_public_key"
    rf"|{re.escape(KEY)}"
)

IMAGES = [
    "ghcr.io/moghtech/komodo-{0}:latest", "ghcr.io/moghtech/komodo-{0}:1.19.5", "ghcr.io/moghtech/komodo-{0}",
    "ghcr.io/moghtech/komodo-{0}:${{TAG:-latest}}", "ghcr.io/moghtech/komodo-{0}:${{TAG}}",
    "'ghcr.io/moghtech/komodo-{0}:${{TAG-1}}'", '"moghtech/komodo-{0}:v1.18.0" # pinned',
    "r.lan:5000/x/moghtech/komodo-{0}:1@sha256:" + "ab" * 32, "ghcr.io/moghtech/komodo-{0}:${{TAG:?set}}",
    "ghcr.io/moghtech/komodo-{0}:${{A}}.${{B}}", "ghcr.io/moghtech/komodo-{0}:2.0.0",
]  # fmt: skip
VOLUMES = [
    "", "volumes:\n- ./b:/backups\n", "volumes:\n  - ./b:/backups # c\n  # - ./x:/x\n", "volumes: [./b:/b, 'c:/d']\n",
    "volumes: []\n", "volumes:\n", "volumes:\n  - ./keys:/config/keys\n", "volumes:\n    - ${ROOT}/b:/${SUB}\n",
    "volumes:\n  - type: bind\n    source: ./c\n    target: /config\n", "volumes: # all\n\n  - ${KEYS}:/config/keys\n",
    "volumes: *v\n",
]  # fmt: skip
ENVIRONMENTS = [
    "", "environment:\n  TZ: UTC\n", "environment:\n  - A=b\n  - C\n", "environment: {A: b}\n", "environment: [A=b]\n",
    "environment:\n", "environment:\n  # c\n  KOMODO_FIRST_SERVER: x # y\n  A: 'b'\n", "environment: *e\n",
    "environment:\n  <<: *e\n  B: c\n", f"environment:\n  {PINS}: ${{CORE_KEY}}\n", f"environment:\n  - {PINS}={OTHER}\n",
    f"environment:\n  {PINS}: 'file:/config/keys/core.pub'\n", f"environment:\n  {PINS}:\n",
    "environment:\n  - KOMODO_FIRST_SERVER_NAME=Local\n",
]  # fmt: skip
MORE = [
    "", "restart: unless-stopped\n", "init: true\n", "init: false # why\n", "init: ${INIT:-true}\n", "env_file: .env\n",
    "env_file:\n  - path: .env\n    required: false\n", "labels:\n  komodo.skip:\n", "command: |\n  core\n  --x\n",
    "depends_on: [db]\n", "# a comment\n", "\n", "ports:\n  - 9120:9120\n",
]  # fmt: skip
ENV_LINES = [
    "TAG=latest", "TAG='1.19.5' # x", 'export TAG="1"', "TAG=2.0.0", f"CORE_KEY={OTHER}", "CORE_KEY=", "CORE_KEY=x,y",
    "KOMODO_FIRST_SERVER=https://p:8120", "  KOMODO_FIRST_SERVER_NAME = L", "A=1", "B=19", "# TAG=1", "", "P='two\nlines'",
    "Q=${A}-$B # c", f"{PINS}={OTHER}", f"{PINS}=file:/config/keys/core.pub", "KOMODO_HOST=https://k.lan", "TZ=UTC",
]  # fmt: skip
TOML_LINES = [
    "port = 8120", "passkeys = []", 'passkeys = ["a", "b"] # c', "passkeys = [\n  'a', # [t]\n]", "# comment", "",
    "logging.level = 'info'", "root_directory = '/x' # core_public_keys = []", 'note = """\n[table]\n= "" \\\n"""',
    "core_public_keys = []", f"core_public_keys = ['{OTHER}'] # c", f"core_public_keys = [\n  '{OTHER}', # c\n]",
    "# core_public_keys = 'x'", "x = { a = [1, 2], b = '#' }", 'core_public_key = ""', 'core_public_keys = "file:/a.pub"',
    f'"core_public_keys" = [ "{OTHER}" ]', "passkeys = '''\na\n'''",
]  # fmt: skip
TOML_TABLES = [
    "[secrets]\nA = 'b'", "[[git_provider]]\ndomain = 'x'", "[logging]\npretty = true\n# end", "# lonely\n\n[a.b]", "[[l]]",
]  # fmt: skip


def service(pick: random.Random, kind: str, indent: int) -> str:
    parts = [f"image: {pick.choice(IMAGES).format(kind)}\n", pick.choice(VOLUMES), pick.choice(ENVIRONMENTS)]
    parts += pick.sample(MORE, pick.randint(0, 3))
    pick.shuffle(parts)
    body = "".join(parts)
    return "".join(f"{' ' * 2 * indent}{line}\n" if line else "\n" for line in body.split("\n")[:-1])


def compose(pick: random.Random) -> str:
    indent = pick.choice([1, 2, 2, 2, 4])
    kinds = pick.choice([["core"], ["core", "periphery"], ["periphery"], ["periphery", "core"]])
    head = pick.choice(["", "name: komodo\n", "# Komodo\n\n", "---\n", "version: '3'\n"])
    text = head + "x-e: &e\n  E: f\nx-v: &v\n  - v:/v\nservices:\n"
    for kind in kinds:
        text += f"{' ' * indent}{kind}:\n{service(pick, kind, indent)}"
        if pick.random() < 0.5:
            text += f"{' ' * indent}db-{kind}:\n{' ' * 2 * indent}image: mongo:${{DB_TAG:-7}}\n"
    return text + pick.choice(["", "volumes:\n  data:\n", "networks: {}\n", "\n# end\n"])


def env(pick: random.Random) -> str:
    return "\n".join(pick.choices(ENV_LINES, k=pick.randint(0, 7))) + "\n"


def toml(pick: random.Random) -> str:
    lines = pick.choices(TOML_LINES, k=pick.randint(0, 5)) + pick.choices(TOML_TABLES, k=pick.randint(0, 2))
    return "\n".join(lines) + "\n"


def written(pick: random.Random, text: str) -> str:
    """With the line ends, the byte order mark and the end that editors leave."""
    if pick.random() < 0.3:
        text = text.rstrip("\n")
    if pick.random() < 0.3:
        text = text.replace("\n", "\r\n")
    return ("\ufeff" if pick.random() < 0.15 else "") + text


def files_of(seed: int) -> list[tuple[str, str]]:
    pick = random.Random(seed)
    return [
        ("compose.yaml", written(pick, compose(pick))),
        (".env", written(pick, env(pick))),
        ("periphery.config.toml", written(pick, toml(pick))),
    ]


def check_untouched(edit: FileEdit) -> None:
    """Lines that no edit may touch are the same, in the same order, and line ends stay."""
    before, after = (
        [line for line in text.removeprefix("\ufeff").splitlines() if not _TOUCHED.search(line)]
        for text in (edit.before, edit.after)
    )
    assert after == before
    if edit.before.count("\r\n") == edit.before.count("\n") > 0:
        assert edit.after.count("\r\n") == edit.after.count("\n")
    assert edit.after.startswith("\ufeff") == edit.before.startswith("\ufeff")
    assert edit.before.endswith("\n") == edit.after.endswith("\n") or not edit.before.strip("\ufeff")


def check_meaning(edit: FileEdit, env_text: str) -> None:
    if edit.kind == "compose":
        known = values(env_text)
        services = oracle.komodo_services(edit.after, known)
        assert services
        for found in services.values():
            assert found["image"].partition("@")[0].endswith(":2.3.2"), found["image"]
            assert oracle.mounts_keys(found, {**known, "KEYS": "./k"})
        agent = services.get("periphery", {}).get("environment")
        pinned = dict(e.split("=", 1) for e in agent if "=" in e) if isinstance(agent, list) else agent or {}
        value = oracle.interpolate(str(pinned.get(PINS) or known.get(PINS, "")), known)
        if "periphery" in services:
            assert KEY in value.split(",") or "file:/config/keys/core.pub" in value.split(",")
    if edit.kind == "periphery-config":
        data = tomllib.loads(edit.after.removeprefix("\ufeff"))
        assert KEY in str(data.get("core_public_keys") or data.get("core_public_key"))


@pytest.mark.parametrize("block", range(BLOCKS))
def test_generated_files_are_edited_once_and_only_where_planned(block: int) -> None:
    outcomes: Counter[str] = Counter()
    for seed in range(block, COUNT, BLOCKS):
        given = files_of(seed)
        results = edit_files(given, target="2.3.2", key=KEY)
        for edit in results:
            outcomes[f"{edit.kind} {'refused' if edit.refused else 'changed' if edit.changed else 'same'}"] += 1
        edits = [e for e in results if not e.refused]
        env_text = next((e.after for e in edits if e.kind == "env"), given[1][1])
        for edit in edits:
            try:
                check_untouched(edit)
                check_meaning(edit, env_text)
            except AssertionError as error:
                raise AssertionError(f"seed {seed}, {edit.path}: {error}") from error
        again = edit_files([(e.path, e.after) for e in edits], target="2.3.2", key=KEY)
        assert [(e.path, e.after) for e in again if e.changed] == [], f"seed {seed}"
        assert [(e.path, e.refused) for e in again if e.refused and len(edits) == len(given)] == [], f"seed {seed}"
    for kind in ("compose", "env", "periphery-config"):
        assert outcomes[f"{kind} changed"] > 0, "the generator makes files that are edited"
