"""rollback: put one server, some, or the whole fleet back."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import click

from cli.options import output_option, reason_option, servers_argument, timeout_option
from cli.output import data, on_terminal, run, say, strong, wants_json
from cli.target import Target, resolve

if TYPE_CHECKING:
    from cli.session import Session
    from cli.upgrade import Upgrade
    from model.progress import RollbackRequest


@click.command("rollback")
@servers_argument
@click.option("--plan", "only_plan", is_flag=True, help="Only show what would be put back and what would be lost.")
@click.option("--detach", is_flag=True, help="Ask nothing: leave at the gate (exit code 6).")
@click.option("--wait", is_flag=True, help="Ask nothing, but stay until the end.")
@reason_option
@timeout_option
@output_option
def rollback_command(
    arguments: tuple[str, ...], *, only_plan: bool, detach: bool, wait: bool, reason: str, timeout: timedelta | None
) -> None:
    """Put the fleet back to the old version, database included; or with SERVER... only these agents.

    While an upgrade runs it is asked to turn back. After its end, however long ago, the backups of its run are used.
    Either way gate `rollback` shows what is lost and wants the fleet's name before anything is touched. A server put
    back alone is out of v2 Core's sight.

    \b
    Examples:
      komodo-upgrade rollback prod --plan
      komodo-upgrade rollback prod
      komodo-upgrade rollback prod web-3         # at the open failure gate of web-3, or after the end
      komodo-upgrade approve prod --confirm prod # the gate that it opens
    """
    target = resolve(arguments, servers=True)
    ask = on_terminal() and not (detach or wait) and not wants_json()
    flow = _Flow(target, ask=ask, wait=wait, reason=reason, timeout=timeout, only_plan=only_plan)
    raise click.exceptions.Exit(run(flow.go()))


class _Flow:
    def __init__(
        self, target: Target, *, ask: bool, wait: bool, reason: str, timeout: timedelta | None, only_plan: bool
    ) -> None:
        self.target = target
        self.ask = ask
        self.wait = wait
        self.reason = reason
        self.timeout = timeout
        self.only_plan = only_plan

    async def go(self) -> int:
        """Turn a running upgrade back, or start the rollback of a closed one."""
        from cli.session import open_session
        from cli.upgrade import Upgrade

        session = await open_session(only_existing=True)
        upgrade = Upgrade(session.client, self.target.name)
        found = await upgrade.describe()
        if not found.is_running:
            return await self._closed(session, upgrade)
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
            from cli.looking_back import fleet_of, result_of
            from model.way_back import rollback_request

            found = await upgrade.describe()
            result = await result_of(session.client, found)
            if result is None or result.plan is None:
                say("nothing was changed yet: a rollback would only end the upgrade")
                return 0
            self._show(rollback_request(result, self.target.fleet or await fleet_of(session.client, found)))
            return 0
        open_before = (await upgrade.progress()).gate
        control = Control(verb=ControlVerb.ROLLBACK, actor=actor(), reason=self.reason)
        gates.tell(await upgrade.control(control), "rollback: the upgrade turns back at its next safe point")
        # The gate that was open when the rollback was asked for is not the one to answer now.
        return await self._follow(upgrade, known_gate=open_before.id if open_before else "")

    async def _closed(self, session: Session, upgrade: Upgrade) -> int:
        from cli.looking_back import PARTIAL, fleet_of, to_undo
        from model.fleet import TASK_QUEUE, workflow_id
        from model.way_back import rollback_request
        from service.connection import actor

        past, older = await to_undo(session.client, self.target.name)
        fleet = self.target.fleet or await fleet_of(session.client, past.run)
        request = self._only_named(replace(rollback_request(past.result, fleet), requested_by=actor()))
        if older:
            say("an earlier upgrade of this fleet was made too; after this one it can be rolled back the same way")
        if self.only_plan:
            self._show(request)
            return 0
        await session.require_worker()
        await session.share_secrets(fleet)
        memo = {"fleet": fleet.name, "requested_by": request.requested_by, "target": fleet.target}
        if self.target.servers:
            memo[PARTIAL] = ", ".join(self.target.servers)
        await session.client.start_workflow(
            "RollbackFleet",
            request,
            id=workflow_id(fleet.name),
            task_queue=TASK_QUEUE,
            memo=memo,
            static_summary=f"roll {fleet.name} back",
        )
        say(f"rollback of upgrade {request.change} has begun; nothing is touched before gate rollback")
        return await self._follow(upgrade)

    def _only_named(self, request: RollbackRequest) -> RollbackRequest:
        """With SERVER…: these agents alone, Core stays."""
        from model.errors import NoSuchUpgrade

        wanted = self.target.servers
        if not wanted:
            return request
        missing = [name for name in wanted if name not in request.servers]
        if missing:
            raise NoSuchUpgrade(
                f"{', '.join(missing)} was not changed by upgrade {request.change}",
                cure=f"it changed: {', '.join(request.servers) or 'no server'}",
            )
        kept = tuple(index for index, name in enumerate(request.servers) if name in wanted)
        return replace(
            request,
            servers=tuple(request.servers[i] for i in kept),
            backups=tuple(request.backups[i] for i in kept),
            core=False,
            core_agent=False,
        )

    def _show(self, request: RollbackRequest) -> None:
        from workflows.texts import rollback_facts

        facts = rollback_facts(request, now=datetime.now(UTC))
        text = "\n".join([strong(f"rollback of upgrade {request.change}"), *(f"  • {fact}" for fact in facts)])
        data({"change": request.change, "servers": request.servers, "core": request.core, "facts": facts}, text)

    async def _follow(self, upgrade: Upgrade, known_gate: str = "") -> int:
        from cli.follow import Follower, Manner

        manner = Manner(ask=self.ask, leave_at_gate=not self.wait, timeout=self.timeout, known_gate=known_gate)
        target = Target(self.target.name, self.target.fleet)
        return await Follower(upgrade, target, manner).follow()
