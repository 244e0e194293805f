"""A fleet installed as v2 without a keys mount: Core and its project's agent keep their key pairs there and back."""

from __future__ import annotations

import stat
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from sandbox.docker.engine import Container
from tests.activities.core_fleet import Bench, bench, codes
from tests.fleet.conftest import until


@pytest.fixture
async def b(tmp_path: Path) -> AsyncIterator[Bench]:
    async with bench(tmp_path, files="v2-keys-inside", core_version="2.0.0", agent_version="2.0.0") as one:
        yield one


def inside(b: Bench, service: str) -> Path:
    """Where a container has its keys."""
    return container(b, service).locate("/config/keys")


def container(b: Bench, service: str) -> Container:
    found = b.sandbox.engine.find(f"komodo-{service}-1")
    assert found is not None
    return found


def pairs(b: Bench) -> dict[str, str]:
    """The private keys that Core and its project's agent have now."""
    return {
        "core": (inside(b, "core") / "core.key").read_text(),
        "periphery": (inside(b, "periphery") / "periphery.key").read_text(),
    }


async def every_agent_is_ok(b: Bench) -> None:
    async def ok() -> bool:
        core = b.sandbox.core
        return core is not None and bool(core.status) and all(s.state == "Ok" for s in core.status.values())

    await until(ok, "Core sees every agent")


async def test_the_pairs_are_copied_out_and_returned(b: Bench) -> None:
    core = b.sandbox.core
    assert core is not None
    public, before = core.public_key, pairs(b)
    key = next(text for _, _, text in container(b, "periphery").logs if "Public Key: " in text)
    pin = {"$set": {"info.public_key": key.rpartition("Public Key: ")[2].strip()}}
    core.store.update("komodo", "Server", {"name": "Local"}, pin, many=False, upsert=False)
    await every_agent_is_ok(b)
    facts = await b.planned()
    assert "key-pair-inside" in codes(facts)
    assert [s.keys_to for s in (facts.core, facts.agent) if s] == [str(b.project / "keys")] * 2

    await b.backed_up()
    saved = b.folder / "keys-inside"
    assert {name: (saved / f"{name}.key").read_text() for name in before} == before
    assert all(stat.S_IMODE(f.stat().st_mode) == 0o600 for f in saved.iterdir())

    final = await b.upgraded_from_backup()
    assert b.sandbox.core is not None
    assert (b.key, b.sandbox.core.public_key) == (public, public)
    assert pairs(b) == before
    assert inside(b, "core") == inside(b, "periphery") == b.project / "keys"
    assert all(stat.S_IMODE(f.stat().st_mode) == 0o600 for f in (b.project / "keys").glob("*.key"))
    await every_agent_is_ok(b)

    b.next_attempt()
    await b.core.stop_core(b.step)
    await b.back.restore_database(b.with_dump(final))
    await b.back.restore_core_files(b.step)
    await b.back.start_old_core(b.step)
    await b.restore_agent()
    assert b.sandbox.core.public_key == public
    assert pairs(b) == before
    assert inside(b, "core") != b.project / "keys"
    assert container(b, "core").image.version == "2.0.0"
    await every_agent_is_ok(b)
    texts = repr(b.results)
    assert not [text for text in before.values() if text.splitlines()[1] in texts]
