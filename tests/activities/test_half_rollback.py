"""A rollback that was terminated halfway, and what the next one must not mistake for the new version's data."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from activities.database.replaced import MARK, RECORD
from model.errors import DatabaseError
from model.facts import DumpFacts
from tests.activities.core_fleet import Bench, bench

IN_V2 = "made in v2"


@pytest.fixture
async def b(tmp_path: Path) -> AsyncIterator[Bench]:
    async with bench(tmp_path) as made:
        yield made


async def half_way(b: Bench) -> tuple[DumpFacts, DumpFacts]:
    """Core is stopped, what v2 had written is dumped, the database is dropped and not restored: the disk was full.

    Then its workflow was terminated, and another one starts.
    """
    final = await b.upgraded()
    b.sandbox.store.insert("komodo", "Tag", [{"name": IN_V2}])
    b.next_attempt()
    back = b.step
    await b.core.stop_core(back)
    pre = await b.dumps.dump_database(b.to_dump("pre_rollback"))
    await b.dumps.prove_dump(b.with_dump(pre))
    b.sandbox.fault("restore-fails", "core", times=1)
    with pytest.raises(DatabaseError, match="could not be restored"):
        await b.back.restore_database(b.with_dump(final))
    b.sandbox.heal()
    b.next_attempt()
    await b.core.stop_core(b.step)
    return final, pre


def made_in_v2(b: Bench) -> int:
    return len(b.sandbox.store.find("komodo", "Tag", {"name": IN_V2}))


async def test_the_dump_of_v2_counts_not_the_rest_in_the_database(b: Bench) -> None:
    final, pre = await half_way(b)
    found = await b.dumps.dump_database(b.to_dump("pre_rollback"))
    assert (found.path, found.collections) == (pre.path, pre.collections)
    ran = b.ran("mongorestore")
    assert (await b.dumps.prove_dump(b.with_dump(found))).proof is not None
    assert b.ran("mongorestore") == ran, "it was proven before"
    await b.back.restore_database(b.with_dump(final))
    await b.back.restore_core_files(b.step)
    assert (await b.back.start_old_core(b.step)).version == "1.19.5"
    assert not (b.folder / MARK).exists(), "it counts as back"


async def test_v2_gets_its_data_back_when_the_second_rollback_fails_at_once(b: Bench) -> None:
    await half_way(b)
    assert made_in_v2(b) == 0
    started = await b.back.return_to_new_core(b.to_return(None))
    assert started.version == "2.3.2"
    assert (await b.survey()).current
    assert made_in_v2(b) == 1
    assert not (b.folder / MARK).exists(), "from here on it is v2's again"


async def test_v2_is_not_started_on_an_emptied_database(b: Bench) -> None:
    """By restore.sh, by hand: there is no dump of what v2 had written."""
    await half_way(b)
    (b.folder / RECORD).unlink()
    with pytest.raises(DatabaseError, match="finish the rollback by hand"):
        await b.back.return_to_new_core(b.to_return(None))
    done = await b.manual_command(f"sudo sh {b.folder}/restore.sh")
    assert done.exit_status == 0, f"{done.stdout!r}\n{done.stderr!r}"
    assert not (b.folder / MARK).exists()
    assert b.sandbox.core is not None
    assert b.sandbox.core.version == "1.19.5"


async def test_a_missing_dump_of_v2_is_not_replaced_by_another(b: Bench) -> None:
    _, pre = await half_way(b)
    (b.folder / "dumps" / pre.path.rsplit("/", 1)[1]).unlink()
    with pytest.raises(DatabaseError, match="finish the rollback by hand"):
        await b.back.return_to_new_core(b.to_return(None))
