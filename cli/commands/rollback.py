"""rollback: return one server, some, or the whole fleet to the old version."""

from __future__ import annotations

import contextlib
from datetime import timedelta
from typing import TYPE_CHECKING

import click

from cli.options import confirm_option, output_option, reason_option, server_option, servers_argument, timeout_option
from cli.output import careful, data, on_terminal, run, say, wants_json
from cli.target import Target, resolve

if TYPE_CHECKING:
    from temporalio.client import Client

    from cli.session import Session
    from model.fleet.spec import FleetSpec
    from model.status import RollbackRequest
    from service.client import Upgrade


@click.command("rollback")
@servers_argument
@server_option
@click.option("--plan", "only_plan", is_flag=True, help="Only show what would be restored and what would be lost.")
@click.option("--change", default="", metavar="STAMP", help="Undo this upgrade instead of the newest one in place.")
@click.option(
    "--database",
    type=click.Choice(["restore", "keep"]),
    default=None,
    help="After an upgrade: restore the final dump, or keep later writes. Default: the fleet file's choice.",
)
@click.option("--detach", is_flag=True, help="Do not ask: end at the gate (exit code 6).")
@click.option("--wait", is_flag=True, help="Do not ask; wait until the rollback ends.")
@confirm_option
@reason_option
@timeout_option
@output_option
def rollback_command(
    arguments: tuple[str, ...],
    named: tuple[str, ...],
    *,
    only_plan: bool,
    change: str,
    database: str | None,
    detach: bool,
    wait: bool,
    confirm: str,
    reason: str,
    timeout: timedelta | None,
) -> None:
    """Return the fleet to the old version, including the database; or only the agents of these servers.

    A running upgrade rolls back. After its end, at any time and from any machine, the run folders on the hosts suffice:
    they show which upgrade is in place. In both cases, gate `rollback` shows what is lost and requires the fleet's name
    before anything is changed. Core v2 does not manage a server that was rolled back alone.

    \b
    Examples:
      komodo-upgrade rollback fleet.toml --plan
      komodo-upgrade rollback fleet.toml
      komodo-upgrade rollback prod web-3         # at the failure gate of web-3, or after the end
      komodo-upgrade rollback fleet.toml --server web-3
      komodo-upgrade rollback prod --confirm prod --wait
      komodo-upgrade approve prod --confirm prod # opens its gate, without --confirm above
    """
    target = resolve((*(arguments or ("",)), *named) if named else arguments, servers=True)
    ask = on_terminal() and not (detach or wait) and not wants_json()
    flow = _Flow(
        target,
        ask=ask,
        wait=wait,
        confirm=confirm,
        reason=reason,
        timeout=timeout,
        only_plan=only_plan,
        change=change,
        database=database or "",
    )
    raise click.exceptions.Exit(run(flow.go()))


class _Flow:
    def __init__(
        self,
        target: Target,
        *,
        ask: bool,
        wait: bool,
        confirm: str,
        reason: str,
        timeout: timedelta | None,
        only_plan: bool,
        change: str,
        database: str,
    ) -> None:
        self.target = target
        self.ask = ask
        self.wait = wait
        self.confirm = confirm
        self.reason = reason
        self.timeout = timeout
        self.only_plan = only_plan
        self.change = change
        self.database = database

    async def go(self) -> int:
        """Roll a running upgrade back, or start the rollback of a closed one."""
        from cli.session import open_session
        from model.errors import NoSuchUpgrade
        from service.answers import check_typed
        from service.client import Upgrade

        check_typed(self.target.name, self.confirm)
        # A fleet file suffices on a machine that does not know the upgrade; a name does not.
        session = await open_session(only_existing=self.target.fleet is None)
        upgrade = Upgrade(session.client, self.target.name)
        try:
            found = await upgrade.describe()
        except NoSuchUpgrade:
            return await self._closed(session)
        if not found.is_running:
            return await self._closed(session)
        if found.kind == "rollback":
            from cli.commands.start import refuse_second

            await refuse_second(session, self.target.name)
        if self.target.servers:
            return await self._one_server(upgrade)
        return await self._running(session, upgrade)

    async def _one_server(self, upgrade: Upgrade) -> int:
        """Answer the failure gate of that server."""
        from cli import gates
        from model.errors import NotAccepted
        from model.gates import Verdict
        from service.answers import Answer

        gate = (await upgrade.progress()).gate
        named = ", ".join(self.target.servers)
        if gate is None or self.target.servers != (gate.subject,) or Verdict.ROLLBACK not in gate.verdicts:
            argument = self.target.argument or self.target.name
            raise NotAccepted(
                f"the upgrade is running and is not waiting for a decision about {named}",
                residue="nothing was changed",
                hint=f"`komodo-upgrade stop {argument}`, then repeat this command",
            )
        if self.only_plan:
            gates.show(gate, self.target)
            return 0
        accepted = await gates.send(upgrade, gate, Answer(verdict=Verdict.ROLLBACK, reason=self.reason))
        data({"gate": gate.id, "verdict": "rollback", "stored_only": accepted.stored_only}, f"{gate.id}: rollback")
        return 0

    async def _running(self, session: Session, upgrade: Upgrade) -> int:
        from cli import gates
        from model.gates import Control, ControlVerb
        from service.connection import actor

        if self.only_plan:
            return await self._show_running(session, upgrade)
        open_before = (await upgrade.progress()).gate
        control = Control(verb=ControlVerb.ROLLBACK, actor=actor(), reason=self.reason)
        gates.report(await upgrade.control(control), "rollback: it starts at the upgrade's next safe point")
        # The gate that was open before the request is not the rollback's gate.
        return await self._follow(upgrade, known_gate=open_before.id if open_before else "")

    async def _show_running(self, session: Session, upgrade: Upgrade) -> int:
        """What the running upgrade would undo: its own steps, or those of all runs if an earlier one upgraded Core."""
        from cli.plans import show_rollback
        from model.errors import NoSuchUpgrade
        from model.rollback import request_from_folders, rollback_request
        from service.history import detailed, fleet_of, result_of
        from service.requests import folders

        found = await upgrade.describe()
        result = await result_of(session.client, found)
        result = result and await detailed(session.client, found, result)
        if result is None or result.plan is None:
            say("nothing has been changed yet: a rollback would only end the upgrade")
            return 0
        fleet = self.target.fleet or await fleet_of(session.client, found)
        request = rollback_request(result, fleet)
        if result.plan.core.current:
            with contextlib.suppress(NoSuchUpgrade):
                of_all = request_from_folders(fleet, await folders(session.client, fleet))
                request = of_all if of_all.core else request
        show_rollback(request)
        return 0

    async def _closed(self, session: Session) -> int:
        """From the run folders on the hosts: needs no history, and includes what was done by hand since."""
        from cli.follow import wait_for_servers
        from cli.plans import show_rollback
        from model.rollback import request_from_folders
        from service.client import Upgrade
        from service.connection import actor
        from service.history import end_watches, fleet_for
        from service.requests import folders

        fleet = await fleet_for(session.client, self.target.name, self.target.fleet)
        self._require_known(fleet)
        await session.require_worker()
        await wait_for_servers(session.client, fleet.name)
        await session.share_secrets(fleet)
        say("reading the run folders on the hosts …")
        seen = await folders(session.client, fleet, only=self.target.servers)
        request = request_from_folders(
            fleet,
            seen,
            only=self.target.servers,
            change=self.change,
            database=self.database,
            requested_by=actor(),
        )
        if seen.core.lock:
            say(
                careful(f"Core's host is locked by {seen.core.lock}: a run that was terminated, or that runs elsewhere")
            )
        if self.only_plan:
            show_rollback(request)
            return 0
        await begin(session.client, request)
        await end_watches(session.client, fleet.name)
        say(f"rollback of upgrade {request.change} has begun; nothing is changed before gate rollback")
        return await self._follow(Upgrade(session.client, fleet.name))

    def _require_known(self, fleet: FleetSpec) -> None:
        names = [server.name for server in fleet.servers]
        for name in self.target.servers:
            if name not in names:
                raise click.UsageError(f"{name} is no server of {fleet.name}; its servers: {', '.join(names)}")

    async def _follow(self, upgrade: Upgrade, known_gate: str = "") -> int:
        from cli.follow import Follower, Mode
        from model.gates import GateKind

        confirmed = GateKind.ROLLBACK if self.confirm else None
        mode = Mode(
            ask=self.ask, end_at_gate=not self.wait, confirmed=confirmed, timeout=self.timeout, known_gate=known_gate
        )
        target = Target(self.target.name, self.target.fleet)
        return await Follower(upgrade, target, mode).follow()


async def begin(client: Client, request: RollbackRequest) -> None:
    """Start the workflow. Nothing is changed before its gate."""
    from model.fleet.spec import TASK_QUEUE, workflow_id
    from model.rollback import by_reference
    from service.operation.search_attributes import for_start
    from service.version import release

    name = request.fleet.name
    memo = {"fleet": name, "requested_by": request.requested_by, "target": request.fleet.target, "release": release()}
    if not request.core and not request.core_is_back:
        memo["servers"] = ", ".join(request.servers)
    await client.start_workflow(
        "RollbackFleet",
        by_reference(request),
        id=workflow_id(name),
        task_queue=TASK_QUEUE,
        memo=memo,
        static_summary=f"roll {name} back",
        search_attributes=await for_start(client, name),
    )
