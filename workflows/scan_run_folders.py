"""ScanRunFolders lists what the run folders can undo. CleanFleet removes the run folders that an operator chose."""

from __future__ import annotations

from temporalio import workflow

from activities import contracts
from model.run_folders import (
    CORE,
    Cleaned,
    CleanHost,
    CleanRequest,
    CleanResult,
    FleetFolders,
    ScanRequest,
)
from workflows.phases.survey_and_plan import scan_run_folders
from workflows.runtime.failures import describe_failure, each
from workflows.runtime.steps import run_step


@workflow.defn(name="ScanRunFolders")
class ScanRunFolders:
    """Used by `rollback` and `clean`. It needs only the hosts, no history, and changes nothing."""

    @workflow.run
    async def run(self, request: ScanRequest) -> FleetFolders:
        """Scan Core and these servers."""
        return await scan_run_folders(request.fleet, request.servers, brief=request.brief)


@workflow.defn(name="CleanFleet")
class CleanFleet:
    """Used by `clean`, after the operator confirmed the list of folders."""

    @workflow.run
    async def run(self, request: CleanRequest) -> CleanResult:
        """Clean all hosts at the same time. Each returns the removed folders, or why it removed none."""
        fleet, unwanted = request.fleet, {one.name: one for one in request.unwanted}
        hosts: dict[str, Cleaned] = {}

        async def one(name: str) -> None:
            core, server = (fleet.core, None) if name == CORE else (None, fleet.server(name))
            ask = CleanHost(
                fleet=fleet.name,
                timing=fleet.timing,
                change=request.change,
                unwanted=unwanted[name],
                core=core,
                server=server,
            )
            hosts[name] = await run_step(contracts.CLEAN_HOST, ask)

        for name, error in (await each(unwanted, one)).items():
            hosts[name] = Cleaned(name=name, problem=describe_failure(error).text)
        return CleanResult(hosts=tuple(hosts[name] for name in unwanted))
