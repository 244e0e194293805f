"""Scenarios recorded for replay: each drives a run to its end and returns the ids of the workflows to record."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import timedelta

from model.facts import Finding, ServerFacts, Severity
from model.fleet.discovery import FindAgents, ListServers, Source
from model.fleet.spec import Event, Watch
from model.gates import ControlVerb, Verdict
from model.rollback import rollback_request
from model.run_folders import CleanRequest, HostFolders, SavedChange, ScanRequest, Unwanted
from model.status import FleetState, UpgradeRequest
from model.steps import Notice, Recheck
from model.watch import WatchCheck, WatchReport, watch_id
from tests.workflows.doubles import CHANGE, Doubles, broken, core_facts, fleet, server_facts, together_fleet
from tests.workflows.driver import QUEUE, Driver
from workflows.check_fleet import CheckFleet
from workflows.discover_fleet import FindFleetAgents, ListFleet
from workflows.scan_run_folders import CleanFleet, ScanRunFolders
from workflows.send_notice import SendNotice

FLEET = "komodo-upgrade/prod"
Scenario = Callable[[Driver, Doubles], Awaitable[tuple[str, ...]]]
"""Returns the ids of the workflows whose histories are recorded."""


async def check(run: Driver, doubles: Doubles) -> tuple[str, ...]:
    """A check of three servers."""
    request = UpgradeRequest(fleet=fleet(3), change=CHANGE, requested_by="ann")
    await run.client.execute_workflow(CheckFleet.run, request, id="komodo-check/prod", task_queue=QUEUE)
    return ("komodo-check/prod",)


async def upgrade(run: Driver, doubles: Doubles) -> tuple[str, ...]:
    """Everything goes well: five servers in waves of two, with an agent in Core's project."""
    doubles.core = core_facts(agent=True)
    talk = await run.upgrade(fleet(5, wave="2"))
    for gate in ("core", "wave/2", "wave/3"):
        await talk.answer(gate)
    assert (await talk.result()).state is FleetState.UPGRADED
    return FLEET, f"{FLEET}/web-1/1"


async def all_at_once(run: Driver, doubles: Doubles) -> tuple[str, ...]:
    """All with Core, which needs two starts; one agent is restored and retried, one is unverified and is skipped."""
    doubles.core = core_facts(agent=True)
    doubles.play("start_core", "core", broken("CommandFailed", "v2 exits"))
    doubles.play("switch_server", "web-2", broken("ConfigNotLoaded", "it is open to anyone"))
    doubles.play("verify_server", "web-3", broken("NotProven", "not seen"))
    talk = await run.upgrade(together_fleet(4))
    await talk.answer("core")
    await talk.answer("failure/core/1", Verdict.RETRY)
    await talk.answer("failure/web-2/1", Verdict.RETRY)
    await talk.answer("failure/web-3/1", Verdict.SKIP)
    assert (await talk.result()).state is FleetState.INCOMPLETE
    return FLEET, f"{FLEET}/web-1/1", f"{FLEET}/web-2/1"


async def pages(run: Driver, doubles: Doubles) -> tuple[str, ...]:
    """Five servers in pages of two; one is restored and retried, and then everything is rolled back."""
    doubles.core = core_facts(agent=True)
    doubles.play("switch_server", "web-3", broken("ConfigNotLoaded", "it is open to anyone"))
    talk = await run.upgrade(replace(fleet(5, wave="3"), page=2))
    await talk.answer("core")
    await talk.answer("wave/2")
    await talk.answer("failure/web-3/1", Verdict.RETRY)
    await talk.gate("wave/3")
    await talk.control(ControlVerb.ROLLBACK)
    await talk.answer("rollback/1")
    result = await talk.result()
    assert result.state is FleetState.ROLLED_BACK
    found = {page.id.split("/")[2]: page.id async for page in run.client.list_workflows("WorkflowType='ServerPage'")}
    assert {"page_survey", "page_upgrade"} <= {*found}
    return FLEET, f"{FLEET}/rollback/{result.core_attempt}", found["page_survey"], found["page_upgrade"]


async def failures(run: Driver, doubles: Doubles) -> tuple[str, ...]:
    """Drift, a Core that needs two starts, a canary restored and retried, an unverified server skipped."""
    doubles.play("recheck_server", "web-1", Recheck(drift=("edited",)))
    doubles.play("start_core", "core", broken("CommandFailed", "v2 exits"))
    doubles.play("switch_server", "web-1", broken("ConfigNotLoaded", "it is open to anyone"))
    doubles.play("verify_server", "web-2", broken("NotProven", "not seen"))
    talk = await run.upgrade(fleet(2))
    await talk.gate("core")
    doubles.servers["web-1"] = server_facts("web-1", binary="other")
    await talk.answer("core")
    await talk.answer("core/2")
    await talk.answer("failure/core/1", Verdict.RETRY)
    await talk.answer("failure/web-1/2", Verdict.RETRY)
    await talk.control(ControlVerb.PAUSE)
    await talk.until(lambda p: p.paused, "paused")
    await talk.control(ControlVerb.RESUME)
    await talk.answer("wave/2")
    await talk.answer("failure/web-2/1", Verdict.SKIP)
    assert (await talk.result()).state is FleetState.INCOMPLETE
    return FLEET, f"{FLEET}/web-1/2", f"{FLEET}/web-1/3", f"{FLEET}/web-2/1"


async def final_dump_fails(run: Driver, doubles: Doubles) -> tuple[str, ...]:
    """The final dump is rejected, so Core is restored automatically."""
    talk = await run.upgrade(fleet(1))
    await talk.gate("core")
    doubles.play("dump_database", "core", broken("DumpRejected", "counts differ"))
    await talk.answer("core")
    assert (await talk.result()).state is FleetState.STOPPED
    return (FLEET,)


async def rollback_half_way(run: Driver, doubles: Doubles) -> tuple[str, ...]:
    """A running upgrade is rolled back by its child workflow."""
    doubles.core = core_facts(agent=True)
    talk = await run.upgrade(fleet(3))
    await talk.answer("core")
    await talk.gate("wave/2")
    await talk.control(ControlVerb.ROLLBACK)
    await talk.answer("rollback/1")
    result = await talk.result()
    assert result.state is FleetState.ROLLED_BACK
    return FLEET, f"{FLEET}/rollback/{result.core_attempt}"


async def rollback_alone(run: Driver, doubles: Doubles) -> tuple[str, ...]:
    """A rollback that starts after the upgrade has closed."""
    spec = fleet(3, approve="core-only", wave="2")
    talk = await run.upgrade(spec)
    await talk.answer("core")
    back = await run.rollback(rollback_request(await talk.result(), spec, requested_by="bob"))
    await back.answer("rollback/1")
    assert (await back.result()).state is FleetState.ROLLED_BACK
    return (FLEET,)


async def offline_and_timers(run: Driver, doubles: Doubles) -> tuple[str, ...]:
    """Servers with automatic rollback; one is offline, and upgraded when it returns."""
    away = Finding(code="unreachable", severity=Severity.REFUSE, subject="web-2", text="no route")
    doubles.servers["web-2"] = ServerFacts(name="web-2", findings=(away,))
    spec = fleet(3, offline_check=timedelta(seconds=1))
    timed = tuple(replace(s, auto_rollback=timedelta(minutes=15)) for s in spec.servers)
    talk = await run.upgrade(replace(spec, servers=timed))
    await talk.answer("core")
    await talk.answer("wave/2")
    await talk.until(lambda p: "checked every" in p.servers[1].step, "waiting for web-2")
    del doubles.servers["web-2"]
    await talk.answer("wave/3")
    assert (await talk.result()).state is FleetState.UPGRADED
    [checks] = [one.id async for one in run.client.list_workflows("WorkflowType='FindReturned'")]
    return FLEET, f"{FLEET}/web-2/1", checks


async def watch(run: Driver, doubles: Doubles) -> tuple[str, ...]:
    """An upgrade and its watch, which reports a finding."""
    found = Finding(code="zombies", severity=Severity.WARN, subject="core", text="37 defunct processes")
    doubles.play("watch_fleet", "core", WatchCheck(), WatchCheck(findings=(found,)))
    second = timedelta(seconds=1)
    talk = await run.upgrade(replace(fleet(1), watch=Watch(lasts=2 * second, every=second, backup_within=3 * second)))
    await talk.answer("core")
    assert (await talk.result()).state is FleetState.UPGRADED
    over = run.client.get_workflow_handle(watch_id(FLEET, CHANGE), result_type=WatchReport)
    assert (await over.result()).checks == 3
    return FLEET, watch_id(FLEET, CHANGE)


async def scan(run: Driver, doubles: Doubles) -> tuple[str, ...]:
    """Read the run folders of Core and three servers; one server is unreachable."""
    saved = SavedChange(change=CHANGE, folder=f"/var/lib/komodo-upgrade/prod/{CHANGE}", in_place=True, name="core")
    doubles.folders["core"] = HostFolders(name="core", changes=(saved,))
    doubles.play("scan_run_folders", "web-2", broken("Unreachable", "no route"))
    request = ScanRequest(fleet=fleet(3), servers=("web-1", "web-2", "web-3"))
    found = await run.client.execute_workflow(ScanRunFolders.run, request, id="komodo-scan/prod", task_queue=QUEUE)
    assert found.core.newest() == saved
    assert "no route" in found.server("web-2").problem
    return ("komodo-scan/prod",)


async def notice(run: Driver, doubles: Doubles) -> tuple[str, ...]:
    """A notice that a person tries."""
    test = Notice(fleet="prod", event=Event.GATE, subject="a test notice", text="this is how")
    await run.client.execute_workflow(SendNotice.run, test, id="komodo-notice/prod", task_queue=QUEUE)
    return ("komodo-notice/prod",)


async def clean(run: Driver, doubles: Doubles) -> tuple[str, ...]:
    """Remove run folders on Core's host and on two servers; one server refuses."""
    doubles.play("clean_host", "web-2", broken("HostLocked", "another upgrade holds the lock"))
    unwanted = tuple(Unwanted(name=name, changes=("20261001T000000Z",)) for name in ("core", "web-1", "web-2"))
    request = CleanRequest(fleet=fleet(3), change=CHANGE, unwanted=unwanted, requested_by="ann")
    result = await run.client.execute_workflow(CleanFleet.run, request, id="komodo-clean/prod", task_queue=QUEUE)
    assert [bool(host.removed) for host in result.hosts] == [True, True, False]
    return ("komodo-clean/prod",)


async def discover(run: Driver, doubles: Doubles) -> tuple[str, ...]:
    """List the servers of Core, then find their agents; one host's survey fails."""
    ids = ("komodo-list/prod", "komodo-agents/prod")
    asked = ListServers(fleet=fleet(3), source=Source.DATABASE)
    known = await run.client.execute_workflow(ListFleet.run, asked, id=ids[0], task_queue=QUEUE)
    doubles.play("find_agent", "web-2", broken("HostError", "its script failed"))
    request = FindAgents(fleet=fleet(3))
    found = await run.client.execute_workflow(FindFleetAgents.run, request, id=ids[1], task_queue=QUEUE)
    assert [agent.name for agent in found.agents] == [server.name for server in known.servers]
    assert [agent.problem for agent in found.agents] == ["", "its script failed", ""]
    return ids


SCENARIOS: dict[str, Scenario] = {
    "check": check,
    "upgrade": upgrade,
    "all-at-once": all_at_once,
    "pages": pages,
    "failures": failures,
    "final-dump-fails": final_dump_fails,
    "rollback-half-way": rollback_half_way,
    "rollback-alone": rollback_alone,
    "offline-and-timers": offline_and_timers,
    "watch": watch,
    "scan": scan,
    "notice": notice,
    "clean": clean,
    "discover": discover,
}
