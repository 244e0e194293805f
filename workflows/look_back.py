"""LookBack: what the run folders on the hosts can undo. CleanFleet: take those away that a person does not want."""

from __future__ import annotations

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from model.fleet import FleetSpec
    from model.folders import (
        CORE,
        Cleaned,
        CleanHost,
        CleanRequest,
        CleanResult,
        FleetFolders,
        HostFolders,
        LookAtFolders,
        LookBackRequest,
    )
with workflow.unsafe.sandbox_import_notification_policy(workflow.SandboxImportNotificationPolicy.SILENT):
    from workflows import steps
    from workflows.saga import each, trouble


@workflow.defn(name="LookBack")
class LookBack:
    """Behind `rollback` and `clean`: needs the hosts alone, no history. Changes nothing."""

    @workflow.run
    async def run(self, request: LookBackRequest) -> FleetFolders:
        """Core and these servers."""
        return await look(request.fleet, request.servers, brief=request.brief)


async def look(fleet: FleetSpec, servers: tuple[str, ...], *, brief: bool = False) -> FleetFolders:
    """Core and these servers, all at the same time. A host that cannot be looked at says why."""
    found: dict[str, HostFolders] = {}

    async def one(name: str) -> None:
        core, server = (fleet.core, None) if name == CORE else (None, fleet.server(name))
        ask = LookAtFolders(fleet=fleet.name, core=core, server=server, brief=brief)
        found[name] = await steps.look_at_folders(ask, fleet.clocks)

    for name, error in (await each((CORE, *servers), one)).items():
        found[name] = HostFolders(name=name, problem=trouble(error).text)
    return FleetFolders(core=found[CORE], servers=tuple(found[name] for name in servers))


@workflow.defn(name="CleanFleet")
class CleanFleet:
    """Behind `clean`. Which folders may go was decided, shown and confirmed before."""

    @workflow.run
    async def run(self, request: CleanRequest) -> CleanResult:
        """All hosts at the same time; each says what is gone, or why it is not."""
        fleet, unwanted = request.fleet, {one.name: one for one in request.unwanted}
        hosts: dict[str, Cleaned] = {}

        async def one(name: str) -> None:
            core, server = (fleet.core, None) if name == CORE else (None, fleet.server(name))
            ask = CleanHost(fleet=fleet.name, change=request.change, unwanted=unwanted[name], core=core, server=server)
            hosts[name] = await steps.clean_host(ask, fleet.clocks)

        for name, error in (await each(unwanted, one)).items():
            hosts[name] = Cleaned(name=name, problem=trouble(error).text)
        return CleanResult(hosts=tuple(hosts[name] for name in unwanted))
