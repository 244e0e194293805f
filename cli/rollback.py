"""rollback: put one server, some, or the whole fleet back."""

from __future__ import annotations

import contextlib
from datetime import timedelta
from typing import TYPE_CHECKING

import click

from cli.options import output_option, reason_option, servers_argument, timeout_option
from cli.output import careful, data, on_terminal, run, say, wants_json
from cli.target import Target, resolve

if TYPE_CHECKING:
    from temporalio.client import Client

    from cli.session import Session
    from cli.upgrade import Upgrade
    from model.fleet import FleetSpec
    from model.progress import RollbackRequest


@click.command("rollback")
@servers_argument
@click.option("--server", "named", multiple=True, metavar="NAME", help="Only this one; may be given several times.")
@click.option("--plan", "only_plan", is_flag=True, help="Only show what would be put back and what would be lost.")
@click.option("--change", default="", metavar="STAMP", help="Undo this upgrade, not the newest one in place.")
@click.option(
    "--database",
    type=click.Choice(["restore", "keep"]),
    default=None,
    help="After an upgrade's end: restore the final dump, or keep what was written since (default: the fleet file's).",
)
@click.option("--detach", is_flag=True, help="Ask nothing: leave at the gate (exit code 6).")
@click.option("--wait", is_flag=True, help="Ask nothing, but stay until the end.")
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
    reason: str,
    timeout: timedelta | None,
) -> None:
    """Put the fleet back to the old version, database included; or only these servers' agents.

    While an upgrade runs it is asked to turn back. After its end, however long ago and from whichever machine, the
    folders on the hosts are enough: they say which upgrade is in place on Core's host and on each server. Either way
    gate `rollback` shows what is lost and wants the fleet's name before anything is touched. A server put back alone is
    out of v2 Core's sight.

    \b
    Examples:
      komodo-upgrade rollback fleet.toml --plan
      komodo-upgrade rollback fleet.toml
      komodo-upgrade rollback prod web-3         # at the open failure gate of web-3, or after the end
      komodo-upgrade rollback fleet.toml --server web-3
      komodo-upgrade approve prod --confirm prod # the gate that it opens
    """
    target = resolve((*(arguments or ("",)), *named) if named else arguments, servers=True)
    ask = on_terminal() and not (detach or wait) and not wants_json()
    flow = _Flow(target, ask=ask, wait=wait, reason=reason, timeout=timeout, only_plan=only_plan, change=change)
    flow.database = database or ""
    raise click.exceptions.Exit(run(flow.go()))


class _Flow:
    def __init__(
        self,
        target: Target,
        *,
        ask: bool,
        wait: bool,
        reason: str,
        timeout: timedelta | None,
        only_plan: bool,
        change: str,
    ) -> None:
        self.target = target
        self.ask = ask
        self.wait = wait
        self.reason = reason
        self.timeout = timeout
        self.only_plan = only_plan
        self.change = change
        self.database = ""

    async def go(self) -> int:
        """Turn a running upgrade back, or start the rollback of a closed one."""
        from cli.session import open_session
        from cli.upgrade import Upgrade
        from model.errors import NoSuchUpgrade

        # A fleet file is enough, on a machine that never saw the upgrade; a bare name is not.
        session = await open_session(only_existing=self.target.fleet is None)
        upgrade = Upgrade(session.client, self.target.name)
        try:
            found = await upgrade.describe()
        except NoSuchUpgrade:
            return await self._closed(session)
        if not found.is_running:
            return await self._closed(session)
        if found.kind == "rollback":
            from cli.start import refuse_second

            await refuse_second(session, self.target.name)
        if self.target.servers:
            return await self._one_server(upgrade)
        return await self._running(session, upgrade)

    async def _one_server(self, upgrade: Upgrade) -> int:
        """At the failure gate of that server."""
        from cli import gates
        from model.decisions import Verdict
        from model.errors import NotAccepted

        gate = (await upgrade.progress()).gate
        named = ", ".join(self.target.servers)
        if gate is None or self.target.servers != (gate.subject,) or Verdict.ROLLBACK not in gate.verdicts:
            argument = self.target.argument or self.target.name
            raise NotAccepted(
                f"the upgrade is running and does not wait for a decision about {named}",
                left="nothing was changed",
                cure=f"stop it first (`komodo-upgrade stop {argument}`), then roll {named} back",
            )
        if self.only_plan:
            gates.show(gate, self.target)
            return 0
        accepted = await gates.send(upgrade, gate, Verdict.ROLLBACK, self.reason)
        data({"gate": gate.id, "verdict": "rollback", "stored_only": accepted.stored_only}, f"{gate.id}: rollback")
        return 0

    async def _running(self, session: Session, upgrade: Upgrade) -> int:
        from cli import gates
        from model.decisions import Control, ControlVerb
        from service.connection import actor

        if self.only_plan:
            return await self._show_running(session, upgrade)
        open_before = (await upgrade.progress()).gate
        control = Control(verb=ControlVerb.ROLLBACK, actor=actor(), reason=self.reason)
        gates.tell(await upgrade.control(control), "rollback: the upgrade turns back at its next safe point")
        # The gate that was open when the rollback was asked for is not the one to answer now.
        return await self._follow(upgrade, known_gate=open_before.id if open_before else "")

    async def _show_running(self, session: Session, upgrade: Upgrade) -> int:
        """What the running upgrade would undo: its own steps, or all runs' where an earlier one took Core along."""
        from cli import rollback_plan
        from cli.looking_back import fleet_of, folders, result_of
        from model.errors import NoSuchUpgrade
        from model.way_back import request_from_folders, rollback_request

        found = await upgrade.describe()
        result = await result_of(session.client, found)
        if result is None or result.plan is None:
            say("nothing was changed yet: a rollback would only end the upgrade")
            return 0
        fleet = self.target.fleet or await fleet_of(session.client, found)
        request = rollback_request(result, fleet)
        if result.plan.core.current:
            with contextlib.suppress(NoSuchUpgrade):
                of_all = request_from_folders(fleet, await folders(session.client, fleet))
                request = of_all if of_all.core else request
        rollback_plan.show(request)
        return 0

    async def _closed(self, session: Session) -> int:
        """From what lies on the hosts: needs no history, and knows what a person did by hand meanwhile."""
        from cli import rollback_plan
        from cli.aftermath import wait_for_servers
        from cli.looking_back import fleet_meant, folders
        from cli.upgrade import Upgrade
        from cli.watching import end_watches
        from model.way_back import request_from_folders
        from service.connection import actor

        fleet = await fleet_meant(session.client, self.target)
        self._known(fleet)
        await session.require_worker()
        await wait_for_servers(session.client, fleet.name)
        await session.share_secrets(fleet)
        say("looking at the folders on the hosts …")
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
            say(careful(f"Core's host is held by {seen.core.lock}: a run that was terminated, or runs on elsewhere"))
        if self.only_plan:
            rollback_plan.show(request)
            return 0
        await begin(session.client, request)
        await end_watches(session.client, fleet.name)
        say(f"rollback of upgrade {request.change} has begun; nothing is touched before gate rollback")
        return await self._follow(Upgrade(session.client, fleet.name))

    def _known(self, fleet: FleetSpec) -> None:
        names = [server.name for server in fleet.servers]
        for name in self.target.servers:
            if name not in names:
                raise click.UsageError(f"{name} is no server of {fleet.name}; its servers: {', '.join(names)}")

    async def _follow(self, upgrade: Upgrade, known_gate: str = "") -> int:
        from cli.follow import Follower, Manner

        manner = Manner(ask=self.ask, leave_at_gate=not self.wait, timeout=self.timeout, known_gate=known_gate)
        target = Target(self.target.name, self.target.fleet)
        return await Follower(upgrade, target, manner).follow()


async def begin(client: Client, request: RollbackRequest) -> None:
    """Start the workflow. Nothing is touched before its gate."""
    from cli.looking_back import PARTIAL
    from model.fleet import TASK_QUEUE, workflow_id

    name = request.fleet.name
    memo = {"fleet": name, "requested_by": request.requested_by, "target": request.fleet.target}
    if not request.core and not request.core_is_back:
        memo[PARTIAL] = ", ".join(request.servers)
    await client.start_workflow(
        "RollbackFleet",
        request,
        id=workflow_id(name),
        task_queue=TASK_QUEUE,
        memo=memo,
        static_summary=f"roll {name} back",
    )
