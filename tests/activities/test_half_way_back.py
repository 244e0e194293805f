"""A way back that was terminated half-way, and what the next one must not take for the new version's data."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from activities.replaced import MARK, RECORD
from model.errors import DatabaseError
from model.facts import DumpFacts
from model.steps import CoreStep
from tests.activities.core_fleet import Bench, bench

IN_V2 = "made in v2"


@pytest.fixture
async def b(tmp_path: Path) -> AsyncIterator[Bench]:
    async with bench(tmp_path) as made:
        yield made


async def half_way(b: Bench) -> tuple[CoreStep, DumpFacts]:
    """Core is stopped, what v2 had written is dumped, the database is dropped and not restored: the disk was full.

    Then its workflow was terminated, and somebody begins anew.
    """
    final = await b.upgraded()
    b.sandbox.store.insert("komodo", "Tag", [{"name": IN_V2}])
    b.next_attempt()
    back = replace(b.step, dump=final)
    await b.core.stop_core(back)
    pre = await b.dumps.dump_database(replace(back, label="pre_rollback"))
    await b.dumps.prove_dump(replace(back, label="pre_rollback", dump=pre))
    b.sandbox.fault("restore-fails", "core", times=1)
    with pytest.raises(DatabaseError, match="could not be restored"):
        await b.back.restore_database(back)
    b.sandbox.heal()
    b.next_attempt()
    again = replace(b.step, dump=final)
    await b.core.stop_core(again)
    return again, pre


def made_in_v2(b: Bench) -> int:
    return len(b.sandbox.store.find("komodo", "Tag", {"name": IN_V2}))


async def test_what_leads_forward_is_what_v2_had_written_not_what_is_left(b: Bench) -> None:
    again, pre = await half_way(b)
    step = replace(again, label="pre_rollback")
    found = await b.dumps.dump_database(step)
    assert (found.path, found.collections) == (pre.path, pre.collections)
    ran = b.ran("mongorestore")
    assert (await b.dumps.prove_dump(replace(step, dump=found))).proof is not None
    assert b.ran("mongorestore") == ran, "it was proven before"
    await b.back.restore_database(again)
    await b.back.restore_core_files(again)
    assert (await b.back.start_old_core(again)).version == "1.19.5"
    assert not (b.folder / MARK).exists(), "it counts as back"


async def test_v2_gets_its_data_back_also_where_the_second_way_back_fails_at_once(b: Bench) -> None:
    again, _ = await half_way(b)
    assert made_in_v2(b) == 0
    started = await b.back.return_to_new_core(replace(again, dump=None))
    assert started.version == "2.3.2"
    assert (await b.survey()).current
    assert made_in_v2(b) == 1
    assert not (b.folder / MARK).exists(), "from here on it is v2's again"


async def test_v2_is_not_started_on_a_database_that_somebody_emptied(b: Bench) -> None:
    """By restore.sh, by hand: nobody has dumped what v2 had written."""
    again, _ = await half_way(b)
    (b.folder / RECORD).unlink()
    with pytest.raises(DatabaseError, match="finish the way back by hand"):
        await b.back.return_to_new_core(replace(again, dump=None))
    done = await b.by_hand(f"sudo sh {b.folder}/restore.sh")
    assert done.exit_status == 0, f"{done.stdout!r}\n{done.stderr!r}"
    assert not (b.folder / MARK).exists()
    assert b.sandbox.core is not None
    assert b.sandbox.core.version == "1.19.5"


async def test_a_dump_of_v2_that_is_gone_is_nobodys(b: Bench) -> None:
    again, pre = await half_way(b)
    (b.folder / "dumps" / pre.path.rsplit("/", 1)[1]).unlink()
    with pytest.raises(DatabaseError, match="finish the way back by hand"):
        await b.back.return_to_new_core(replace(again, dump=None))
