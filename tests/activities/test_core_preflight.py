"""What Compose would make of the files of Core's project, checked before anything is changed."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from activities.core import key_pair
from komodo.core.containers import refuse
from model.facts import CoreFacts
from tests.activities.core_fleet import Bench, bench, refusals


@pytest.fixture
async def b(tmp_path: Path) -> AsyncIterator[Bench]:
    async with bench(tmp_path) as made:
        yield made


def compose_file(b: Bench) -> Path:
    return next(b.project.glob("*compose.yaml"))


def refused(facts: CoreFacts) -> dict[str, str]:
    return {f.code: f.text for f in refusals(facts)}


async def test_a_profile_that_no_file_activates(b: Bench) -> None:
    compose = compose_file(b)
    compose.write_text(compose.read_text().replace("  core:\n", "  core:\n    profiles: [komodo]\n", 1))
    assert "(komodo)" in refused(await b.survey())["profile"]
    env = b.project / "compose.env"
    env.write_text(env.read_text() + "COMPOSE_PROFILES=other,komodo\n")
    assert "profile" not in refused(await b.survey())


@pytest.mark.skipif(os.getuid() != 0, reason="only root gives files away")
async def test_a_file_of_root_in_a_folder_of_another_user(b: Bench) -> None:
    os.chown(b.project, 65534, 65534)
    found = {f.text: f.hint for f in refusals(await b.survey()) if f.code == "file-owner"}
    compose = compose_file(b)
    assert found[f"{compose} does not belong to the owner of its folder, so it cannot be replaced safely"].endswith(
        f"sudo chown 65534 {compose}"
    )


async def test_settings_of_the_shell_that_started_the_project(b: Bench) -> None:
    """They are in the container, and no file has them any more."""
    env = b.project / "compose.env"
    env.write_text("".join(line for line in env.read_text().splitlines(True) if "KOMODO_JWT_SECRET" not in line))
    compose = compose_file(b)
    before, core, rest = compose.read_text().partition("\n  core:\n")
    rest = rest.replace("    environment:\n", "    environment:\n      KOMODO_JWT_SECRET: ${OF_A_SHELL}\n", 1)
    compose.write_text(before + core + rest)
    assert "without KOMODO_JWT_SECRET" in refused(await b.survey())["shell-settings"]


async def test_a_core_of_its_own_user_needs_its_folder(b: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    (b.project / "keys").write_text("")
    assert "is a file" in refused(await b.survey())["keys-not-writable"]
    (b.project / "keys").unlink()
    monkeypatch.setattr(key_pair, "findings", lambda _, *words: [refuse("x", " ".join(words))])
    assert f"{b.project / 'keys'} - -" in refused(await b.survey())["x"]
    (b.project / "keys").mkdir(mode=0o750)
    assert " 750" in refused(await b.survey())["x"]
