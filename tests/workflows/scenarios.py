"""What is recorded for replay: each drives a run to its end and says which workflows' histories to keep."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import timedelta

from model.decisions import ControlVerb, Verdict
from model.facts import Finding, ServerFacts, Severity
from model.fleet import Watch
from model.progress import FleetState, UpgradeRequest
from model.steps import Recheck
from model.watch import WatchLook, WatchReport, watch_id
from model.way_back import rollback_request
from tests.workflows.doubles import CHANGE, Doubles, broken, core_facts, fleet, server_facts, together_fleet
from tests.workflows.driver import QUEUE, Driver
from workflows.check_fleet import CheckFleet

FLEET = "komodo-upgrade/prod"
Scenario = Callable[[Driver, Doubles], Awaitable[tuple[str, ...]]]
"""Returns the ids of the workflows whose histories are kept."""


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


async def together(run: Driver, doubles: Doubles) -> tuple[str, ...]:
    """All with Core, which needs two starts; one agent is put back and retried, one is not proven and skipped."""
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


async def trouble(run: Driver, doubles: Doubles) -> tuple[str, ...]:
    """Drift, a Core that needs two starts, a canary put back and retried, an unproven server skipped."""
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
    """Core undoes itself."""
    talk = await run.upgrade(fleet(1))
    await talk.gate("core")
    doubles.play("dump_database", "core", broken("DumpRejected", "counts differ"))
    await talk.answer("core")
    assert (await talk.result()).state is FleetState.STOPPED
    return (FLEET,)


async def rollback_half_way(run: Driver, doubles: Doubles) -> tuple[str, ...]:
    """A running upgrade is rolled back by its child."""
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
    """After the upgrade has closed."""
    spec = fleet(3, approve="core-only", wave="2")
    talk = await run.upgrade(spec)
    await talk.answer("core")
    back = await run.rollback(rollback_request(await talk.result(), spec, requested_by="bob"))
    await back.answer("rollback/1")
    assert (await back.result()).state is FleetState.ROLLED_BACK
    return (FLEET,)


async def night(run: Driver, doubles: Doubles) -> tuple[str, ...]:
    """Servers with dead-man timers; one that is away, and upgraded when it returns."""
    away = Finding(code="unreachable", severity=Severity.REFUSE, subject="web-2", text="no route")
    doubles.servers["web-2"] = ServerFacts(name="web-2", findings=(away,))
    spec = fleet(3, offline_look=timedelta(seconds=1))
    timed = tuple(replace(s, dead_man=timedelta(minutes=15)) for s in spec.servers)
    talk = await run.upgrade(replace(spec, servers=timed))
    await talk.answer("core")
    await talk.answer("wave/2")
    await talk.until(lambda p: "next look" in p.servers[1].step, "waiting for web-2")
    del doubles.servers["web-2"]
    await talk.answer("wave/3")
    assert (await talk.result()).state is FleetState.UPGRADED
    return FLEET, f"{FLEET}/web-2/1"


async def watch(run: Driver, doubles: Doubles) -> tuple[str, ...]:
    """An upgrade, and the watch over it, which finds something."""
    found = Finding(code="zombies", severity=Severity.WARN, subject="core", text="37 defunct processes")
    doubles.play("watch_fleet", "core", WatchLook(), WatchLook(findings=(found,)))
    second = timedelta(seconds=1)
    talk = await run.upgrade(replace(fleet(1), watch=Watch(lasts=2 * second, every=second, backup_within=3 * second)))
    await talk.answer("core")
    assert (await talk.result()).state is FleetState.UPGRADED
    over = run.client.get_workflow_handle(watch_id(FLEET, CHANGE), result_type=WatchReport)
    assert (await over.result()).looks == 3
    return FLEET, watch_id(FLEET, CHANGE)


SCENARIOS: dict[str, Scenario] = {
    "check": check,
    "upgrade": upgrade,
    "together": together,
    "trouble": trouble,
    "final-dump-fails": final_dump_fails,
    "rollback-half-way": rollback_half_way,
    "rollback-alone": rollback_alone,
    "night": night,
    "watch": watch,
}
