"""`[core] files = "external"`: others edit Core's files after the backup; the upgrade requires exactly the plan."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from activities.core.files import read_and_edit
from model.errors import PlanChanged
from model.fleet.spec import CoreFiles
from tests.activities.core_fleet import Bench, bench, codes, refusals

BY_FILE = "PERIPHERY_CORE_PUBLIC_KEYS=file:/config/keys/core.pub\n"


@pytest.fixture
async def b(tmp_path: Path) -> AsyncIterator[Bench]:
    async with bench(tmp_path) as made:
        made.fleet = replace(made.fleet, core=replace(made.fleet.core, files=CoreFiles.EXTERNAL))
        env = made.project / "compose.env"
        env.write_text(env.read_text() + BY_FILE)
        yield made


async def deploy(b: Bench) -> dict[str, str]:
    """Edit the files as the repository's owner does. Returns the old texts by name."""
    host = await b.hosts.get(b.fleet.core.host)
    edits = await read_and_edit(host, b.step.facts, b.fleet.target, b.fleet.core.keys_mount)
    for edit in edits.files:
        (b.project / Path(edit.path).name).write_text(edit.after)
    return {Path(edit.path).name: edit.before for edit in edits.files}


async def test_files_are_expected_and_a_rollback_restores_the_old_ones(b: Bench) -> None:
    await b.staged()
    names = {Path(e.path).name for e in b.step.facts.edits}
    recheck = await b.preflight.recheck_core(b.step)
    assert recheck.drift == ()
    assert {Path(path).name for path in recheck.missing} == names == {"mongo.compose.yaml", "compose.env"}
    with pytest.raises(PlanChanged, match="without the planned edits, which others make"):
        await b.core.write_core_files(b.to_write())
    before = await deploy(b)
    recheck = await b.preflight.recheck_core(b.step)
    assert (recheck.drift, recheck.missing) == ((), ())
    await b._quiet()
    await b.core.write_core_files(b.to_write())
    await b.core.start_core(b.step)
    b.next_attempt()
    await b.core.stop_core(b.step)
    await b.back.restore_core_files(b.step)
    assert {name: (b.project / name).read_text() for name in before} == before


async def test_the_undo_of_a_stop_starts_the_old_core_from_the_old_files(b: Bench) -> None:
    """In the order of the workflow's undo: the files, then the start."""
    await b.staged()
    before = await deploy(b)
    await b.core.stop_core(b.step)
    await b.back.restore_core_files(b.step)
    started = await b.back.start_old_core(b.step)
    assert started.version == b.step.facts.version
    assert {name: (b.project / name).read_text() for name in before} == before


async def test_another_edit_is_a_difference_from_the_plan(b: Bench) -> None:
    await b.staged()
    await deploy(b)
    env = b.project / "compose.env"
    env.write_text(env.read_text() + "# more\n")
    recheck = await b.preflight.recheck_core(b.step)
    assert [line for line in recheck.drift if "compose.env was edited" in line]
    assert [Path(path).name for path in recheck.missing] == ["compose.env"]


async def test_files_that_are_edited_before_the_start_are_refused(b: Bench) -> None:
    await b.planned()
    await deploy(b)
    assert refusals(await b.survey())


async def test_a_key_that_would_be_written_there_is_refused(b: Bench) -> None:
    env = b.project / "compose.env"
    env.write_text(env.read_text().replace(BY_FILE, ""))
    assert "external-key" in codes(await b.survey())
