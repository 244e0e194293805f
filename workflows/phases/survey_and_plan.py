"""Survey every host in parallel, then make the plan. Changes nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from temporalio.exceptions import FailureError

from activities import contracts
from model.facts import CoreFacts, Finding, ServerFacts, Severity
from model.fleet.spec import FleetSpec
from model.pages.servers import PageRequest, PageServer, PageStep, ServerResult
from model.planning import NOT_PROVEN, all_current
from model.run_folders import CORE, FleetFolders, HostFolders, ScanHost
from model.status import FleetState, Phase, ServerState
from model.steps import Operation, SurveyCore
from workflows.phases import schedule
from workflows.phases.server_steps import run_on_servers, survey_failed
from workflows.runtime import messages
from workflows.runtime.run import Ended
from workflows.runtime.steps import run_step
from workflows.runtime.upgrade_run import UpgradeRun


async def survey_and_plan(run: UpgradeRun) -> None:
    """Report all findings of all hosts at once. Raises Ended if there is nothing to do, or if a finding refuses."""
    await schedule.wait_for_start(run)
    run.enter(Phase.PREFLIGHT)
    await schedule.read_windows(run)
    core, servers = await survey(run.fleet, run.in_run)
    run.enter(Phase.PLAN)
    run.make_plan(core, servers)
    plan = run.planned
    for name in plan.already_current:
        run.update_line(name, state=ServerState.ALREADY_CURRENT)
    if plan.refusals:
        lines = "\n".join(messages.finding_lines(plan.refusals))
        raise Ended(FleetState.REFUSED, f"preflight refused, nothing was changed:\n{lines}")
    if all_current(plan):
        text = f"{plan.fleet} is on {plan.target} already: nothing to do{messages.others_of_fleet(plan)}"
        unseen = messages.finding_lines(f for f in plan.warnings if f.code == NOT_PROVEN)
        raise Ended(FleetState.ALREADY_CURRENT, "\n".join((text, *unseen)))
    await run.gatekeeper.safe_point()


async def survey(fleet: FleetSpec, names: Iterable[str]) -> tuple[CoreFacts, dict[str, ServerFacts]]:
    """Survey Core and these servers at the same time. A survey that fails becomes a finding that refuses."""
    order, found = tuple(names), dict[str, ServerFacts]()

    def keep(result: ServerResult) -> None:
        if result.facts:
            found[result.name] = result.facts

    request = PageRequest(step=PageStep.SURVEY, fleet=fleet, servers=_servers(fleet, order))
    core, failed = await asyncio.gather(_survey_core(fleet), run_on_servers(request, keep))
    for name, why in failed.items():
        finding = Finding(code="survey-failed", severity=Severity.REFUSE, subject=name, text=why.text)
        found[name] = ServerFacts(name=name, findings=(finding,))
    return core, {name: found[name] for name in order}


def _servers(
    fleet: FleetSpec, names: Iterable[str], change_of: Callable[[str], str] = lambda _: ""
) -> tuple[PageServer, ...]:
    """For steps that change nothing."""
    return tuple(PageServer(op=Operation(change=change_of(n), fleet=fleet.name, target=n)) for n in names)


async def _survey_core(fleet: FleetSpec) -> CoreFacts:
    try:
        return await run_step(contracts.SURVEY_CORE, SurveyCore(fleet=fleet))
    except FailureError as error:
        return CoreFacts(findings=(survey_failed(CORE, error),))


async def scan_run_folders(fleet: FleetSpec, servers: tuple[str, ...], *, brief: bool = False) -> FleetFolders:
    """Read the run folders of Core and these servers at the same time. A host that cannot be read reports why."""
    core, others = await asyncio.gather(
        _scan_core(fleet, brief=brief), scan_servers(fleet, servers, lambda _: "", brief=brief)
    )
    return FleetFolders(core=core, servers=others)


async def _scan_core(fleet: FleetSpec, *, brief: bool) -> HostFolders:
    ask = ScanHost(fleet=fleet.name, timing=fleet.timing, core=fleet.core, brief=brief)
    try:
        return await run_step(contracts.SCAN_RUN_FOLDERS, ask)
    except FailureError as error:
        return HostFolders(name=CORE, problem=survey_failed(CORE, error).text)


async def scan_servers(
    fleet: FleetSpec, names: Iterable[str], change_of: Callable[[str], str], *, brief: bool = False
) -> tuple[HostFolders, ...]:
    """Read the run folders of these servers. `change_of`: only the folder of this run; empty: all."""
    order, found = tuple(names), dict[str, HostFolders]()

    def keep(result: ServerResult) -> None:
        if result.folders:
            found[result.name] = result.folders

    request = PageRequest(step=PageStep.SCAN, fleet=fleet, servers=_servers(fleet, order, change_of), brief=brief)
    for name, why in (await run_on_servers(request, keep)).items():
        found[name] = HostFolders(name=name, problem=why.text)
    return tuple(found[name] for name in order)
