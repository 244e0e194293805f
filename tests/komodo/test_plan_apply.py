"""Plan, apply, plan again: the second plan is empty. Over files in the shape of the official ones, and variations.

`PLAN_APPLY_CASES=10000 pytest tests/komodo/test_plan_apply.py --timeout 3600 --komodo-files DIR` tries more of them,
also over the files of Komodo itself.
"""

from __future__ import annotations

import os
import random
import re
from collections import Counter
from dataclasses import dataclass

import pytest

from komodo.files.edit_set import FileEdit, ProjectFiles, digest, edit_config, edit_project
from komodo.public_key import PLACEHOLDER
from model.errors import EditRefused
from model.facts import PlannedEdit
from sandbox import seed_files, seed_v2
from tests.conftest import official_files

KEY = "MCowBQYDK2VuAyEAb1kVSVIz3DHlPwyWEsnPFa0rPLnJNHrSHZmVLEv2Wz4="
OTHER = "MCowBQYDK2VuAyEAaZgrjGHeF0KJUe0+n77+qAWOg3YzEzXOmQWaRgO3OGQ="
TARGET = "2.3.2"
HERE = "/srv/komodo"
CONFIG = "/etc/komodo/periphery.config.toml"
CASES = int(os.environ.get("PLAN_APPLY_CASES", "60"))
BLOCKS = 4
"""Tests that share the cases, so that they can run in parallel."""


@dataclass(frozen=True)
class Basis:
    """Files of one installation before an upgrade."""

    name: str
    compose: str = ""
    env: str = ""
    config: str = ""


def shapes() -> list[Basis]:
    """Written by ourselves, in the shape of the official files."""
    words = dict.fromkeys(("db_password", "passkey", "webhook_secret", "jwt_secret", "admin_password"), "s3cret")
    env = seed_files.ENV.format(root="", tag="latest", host="https://komodo.lan", interval="15-sec", **words)
    found = [Basis(f"v1 {kind}", seed_files.compose_text(kind), env) for kind in ("mongo", "ferretdb")]
    volumes = "volumes:\n  keys:\n  mongo-data:\n  mongo-config:\n"
    v2 = "services:\n" + seed_v2._MONGO + seed_v2._CORE + volumes
    found.append(Basis("v2 mongo", v2, "COMPOSE_KOMODO_IMAGE_TAG=2.0.0\nKOMODO_DATABASE_USERNAME=k\n"))
    plain = seed_files._PLAIN.format(passkeys='"s3cret"')
    edited = seed_files._EDITED.format(core="10.0.0.2", passkey="s3cret", git_token="t", stack_secret="t")
    return [*found, Basis("agent plain", config=plain), Basis("agent edited", config=edited)]


def official(config: pytest.Config) -> list[Basis]:
    """Komodo's own files, if they are given."""
    found = []
    for path in official_files(config):
        name = "/".join(path.parts[-3:])
        if path.name.endswith("compose.yaml"):
            env = (path.parent / "compose.env").read_bytes().decode()
            found.append(Basis(name, path.read_bytes().decode(), env))
        if path.name == "periphery.config.toml":
            found.append(Basis(name, config=path.read_bytes().decode()))
    return found


# --- variations -------------------------------------------------------------------------------------------------------

TAGS = ["latest", "1", "1.19.5", "v1.18.4", "1.15.0", "'1.19.5'", '"latest" # newest', "2", "2.0.0", "2.3.2"]
IMAGE_TAGS = [":latest", "", ":1.19.5", ":${TAG:-latest}", ":${COMPOSE_KOMODO_IMAGE_TAG}", ":1@sha256:" + "ab" * 32]
ENV_EXTRA = [
    f"PERIPHERY_CORE_PUBLIC_KEYS={OTHER}", "PERIPHERY_CORE_PUBLIC_KEYS=file:/config/keys/core.pub", "TAG=1.19.5",
    "# KOMODO_FIRST_SERVER=x", "export TZ=UTC", "A='two\nlines'", "", "KOMODO_FIRST_SERVER_NAME = Local",
]  # fmt: skip
COMPOSE_EXTRA = [
    "  web:\n    image: nginx\n", "  # a comment\n", "\n", "  cache:\n    image: redis:7\n    command: |\n      core\n",
]  # fmt: skip
SERVICE_EXTRA = [
    "    init: true\n", "    init: false\n", "    volumes: []\n", "    environment:\n      A: b\n", "    # a comment\n",
    f"    environment:\n      PERIPHERY_CORE_PUBLIC_KEYS: {OTHER}\n", "    user: 0:0\n",
    "    environment:\n      - PERIPHERY_CORE_PUBLIC_KEYS=${CORE_KEY}\n", "    labels: [a, b]\n",
]  # fmt: skip
CONFIG_EXTRA = [
    "core_public_keys = []", f'core_public_keys = ["{OTHER}"] # c', f"core_public_keys = [\n  '{OTHER}',\n]", "# c",
    'core_public_keys = "file:/etc/komodo/keys/core.pub"', "x = { a = [1, 2] }", "", 'core_public_key = ""',
    'note = """\n[table]\n"""',
]  # fmt: skip


def varied(seed: int, basis: Basis) -> Basis:
    """The basis with a few changes that people make. Number 0 is the basis itself."""
    pick = random.Random(f"{seed} {basis.name}")
    if seed < 1:
        return basis
    compose, env, config = basis.compose, basis.env, basis.config
    if compose:
        env = re.sub(r"(?m)^(COMPOSE_KOMODO_IMAGE_TAG=).*$", lambda m: m[1] + pick.choice(TAGS), env)
        env = _with_lines(pick, env, ENV_EXTRA)
        if pick.random() < 0.5:
            tag = pick.choice(IMAGE_TAGS)
            compose = re.sub(r"(image: \S*komodo-\w+)\S*", lambda m: m[1] + tag, compose)
        compose = _with_services(pick, compose)
    if config:
        config = _with_lines(pick, config, CONFIG_EXTRA)
    return Basis(basis.name, *(_written(pick, text) for text in (compose, env, config)))


def _with_lines(pick: random.Random, text: str, extra: list[str]) -> str:
    lines = text.splitlines()
    for line in pick.sample(extra, pick.randint(0, 2)):
        lines.insert(pick.randint(0, len(lines)), line)
    return "\n".join(lines) + "\n"


def _with_services(pick: random.Random, text: str) -> str:
    if pick.random() < 0.4:
        text = re.sub(r"(?m)^services:\n", lambda m: m[0] + pick.choice(COMPOSE_EXTRA), text, count=1)
    if pick.random() < 0.6:
        extra = pick.choice(SERVICE_EXTRA)
        text = re.sub(r"(?m)^ +image: \S*komodo-\w+.*\n", lambda m: m[0] + extra, text, count=pick.randint(1, 2))
    if pick.random() < 0.3:
        text = re.sub(r"(?m)^( +)", r"\1\1", text)
    return text


def _written(pick: random.Random, text: str) -> str:
    """With the line ends and the end that editors leave."""
    if pick.random() < 0.15:
        text = text.rstrip("\n")
    return text.replace("\n", "\r\n") if pick.random() < 0.2 else text


# --- plan and apply ---------------------------------------------------------------------------------------------------


def project(compose: str, env: str) -> ProjectFiles:
    path = f"{HERE}/compose.env"
    return ProjectFiles(
        directory=HERE, compose={f"{HERE}/compose.yaml": compose}, envs={path: env}, fills=(path,)
    )  # fmt: skip


def apply(texts: dict[str, str], planned: tuple[PlannedEdit, ...], results: dict[tuple[str, bool], FileEdit]) -> None:
    """As the steps do it: each file is what was planned for before, and what was planned for after."""
    for edit in planned:
        assert digest(texts[edit.path]) == edit.base_sha256, edit.path
        done = results[edit.path, edit.with_key]
        assert digest(done.after.replace(KEY, PLACEHOLDER) if edit.with_key else done.after) == edit.result_sha256
        texts[edit.path] = done.after


def check_project(case: Basis) -> str:
    files = project(case.compose, case.env)
    edit = edit_project(files, target=TARGET, key=PLACEHOLDER, copies_keys=True)
    try:
        edit.refuse_unsafe()
    except EditRefused:
        return "refused"
    planned = edit.planned()
    keyed = edit_project(files, target=TARGET, key=KEY, copies_keys=True)
    results = {(file.path, False): file for file in keyed.files}
    if keyed.pin:
        results[keyed.pin.path, True] = keyed.pin
    texts = {**files.compose, **files.envs}
    apply(texts, planned, results)
    again = edit_project(
        project(texts[f"{HERE}/compose.yaml"], texts[f"{HERE}/compose.env"]), target=TARGET, key=KEY, copies_keys=True
    )
    again.refuse_unsafe()
    assert [(e.path, e.diff) for e in again.planned()] == []
    return "changed" if planned else "same"


def check_config(case: Basis, *, by_file: bool) -> str:
    options = {"by_file": by_file, "key_file": "file:/etc/komodo/keys/core.pub" if by_file else ""}
    edit = edit_config(CONFIG, case.config, PLACEHOLDER, **options)  # type: ignore[arg-type]
    if edit.refused:
        return "refused"
    planned = (edit.planned(with_key=True),) if edit.changed else ()
    texts = {CONFIG: case.config}
    keyed = edit_config(CONFIG, case.config, KEY, **options)  # type: ignore[arg-type]
    apply(texts, planned, {(CONFIG, True): keyed})
    again = edit_config(CONFIG, texts[CONFIG], KEY, **options)  # type: ignore[arg-type]
    assert again.refused is None
    assert not again.changed, again.planned().diff
    return "changed" if planned else "same"


@pytest.mark.parametrize("block", range(BLOCKS))
def test_after_a_plan_was_applied_the_next_plan_is_empty(block: int, pytestconfig: pytest.Config) -> None:
    bases = [*shapes(), *official(pytestconfig)]
    outcomes: Counter[str] = Counter()
    for number in range(block, CASES, BLOCKS):
        basis = bases[number % len(bases)]
        seed = number // len(bases)
        case = varied(seed, basis)
        try:
            outcome = check_project(case) if case.compose else check_config(case, by_file=seed % 2 == 1)
        except AssertionError as error:
            raise AssertionError(f"{basis.name}, variation {seed}: {error}") from error
        outcomes[outcome] += 1
        outcomes[f"unchanged file {outcome}"] += seed == 0
    print(f"{sum(outcomes[o] for o in ('changed', 'same', 'refused'))} cases: {dict(outcomes)}")
    assert outcomes["changed"] > outcomes["refused"], outcomes
