"""No payload grows with the fleet until Temporal refuses it: real payloads at two sizes, and what follows for 1,000."""

from __future__ import annotations

from typing import Any

import pytest
from temporalio.client import WorkflowHandle
from temporalio.testing import WorkflowEnvironment

from model.pages import results as pages
from model.rollback import by_reference, request_from_folders
from model.run_folders import FleetFolders, ScanRequest
from model.status import FleetState, UpgradeRequest
from service.codec import compression
from service.payloads import data_converter
from tests.workflows.doubles import CHANGE, fleet
from tests.workflows.driver import QUEUE, Driver
from tests.workflows.full_size import FullSize
from tests.workflows.histories import sizes
from workflows.check_fleet import CheckFleet
from workflows.scan_run_folders import ScanRunFolders

LARGEST = 256 * 1024
"""Bytes of a payload as Temporal stores it, which is compressed. It warns there, and refuses payloads above 2 MiB."""
SERVERS = 1_000
PAGE, REAL_PAGE = 5, pages.PAGE
"""Servers in a page of this test, and in a page otherwise."""
FEW, MORE = 6, 16


async def test_no_payload_of_a_run_of_1000_servers_is_too_large(
    real: WorkflowEnvironment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pages, "PAGE", PAGE)
    monkeypatch.setattr(pages, "DETAILED", PAGE)
    monkeypatch.setattr(compression, "_SMALLEST", 256)
    few, more = await _measure(real, FEW), await _measure(real, MORE)
    expected = {name: _at_full_size(few[name], size) for name, size in more.items()}
    too_large = {name: int(size) for name, size in expected.items() if size > LARGEST}
    assert not too_large, f"measured with {MORE} servers: { {name: more[name] for name in too_large} }"
    assert {"query plan_page", "query result_page", "query progress"} <= set(expected)


def _at_full_size(few: int, more: int) -> float:
    """Bytes at SERVERS if the growth continues; a page is REAL_PAGE / PAGE times as large as here."""
    growth = (more - few) / (MORE - FEW)
    return max(more + growth * (SERVERS - MORE), more * REAL_PAGE / PAGE if growth < few / FEW / 4 else 0)


async def _measure(env: WorkflowEnvironment, servers: int) -> dict[str, int]:
    """The largest payload of each kind of event and query, of an upgrade, its check, and its rollback."""
    doubles, spec = FullSize(servers), fleet(servers, approve="core-only", wave=str(PAGE))
    found: dict[str, int] = {}
    async with Driver.plain(env, doubles) as run:
        check = await run.client.start_workflow(
            CheckFleet.run, UpgradeRequest(fleet=spec, change=CHANGE), id=f"check/{servers}", task_queue=QUEUE
        )
        assert (await check.result()).plan.waves
        talk = await run.upgrade(spec)
        await talk.answer("core")
        assert (await talk.result()).state is FleetState.UPGRADED
        found |= await _answers(talk.handle)
        names = tuple(server.name for server in spec.servers)
        scanned = [
            await run.client.execute_workflow(
                ScanRunFolders.run,
                ScanRequest(fleet=spec, servers=names[start : start + PAGE]),
                id=f"scan/{servers}/{start}",
                task_queue=QUEUE,
            )
            for start in range(0, servers, PAGE)
        ]
        seen = FleetFolders(core=scanned[0].core, servers=tuple(host for part in scanned for host in part.servers))
        back = await run.rollback(by_reference(request_from_folders(spec, seen, requested_by="ann")))
        await back.answer("rollback/1")
        result = await back.result()
        assert result.state is FleetState.ROLLED_BACK, result.detail
        assert doubles.count("restore_server") == servers
        found |= {f"rollback, {name}": size for name, size in (await _answers(back.handle)).items()}
        for size in await sizes(run.client):
            for name, payload in size.payloads.items():
                found[name] = max(payload, found.get(name, 0))
    return found


async def _answers(handle: WorkflowHandle[Any, Any]) -> dict[str, int]:
    asked: dict[str, list[int]] = {"plan": [], "progress": [], "result": [], "plan_page": [1], "result_page": [1]}
    found = {}
    for name, arguments in asked.items():
        [payload] = await data_converter.encode([await handle.query(name, args=arguments)])
        found[f"query {name}"] = payload.ByteSize()
    return found
