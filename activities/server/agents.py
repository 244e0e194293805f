"""The steps on servers: each one finds the kind of its agent and delegates to it."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Protocol

from temporalio import activity

from activities.server.backup import missing_for_rollback
from activities.server.connection import return_address
from activities.server.kinds.compose import ComposeAgent
from activities.server.kinds.container import CoreProjectAgent
from activities.server.kinds.systemd import Systemd
from activities.server.preflight import Machine, read_machine
from activities.server.survey import AgentJournal
from hosts.host import Host
from hosts.ssh.pool import Hosts
from komodo.agent.kinds import FoundAgent
from komodo.agent.survey import from_error
from model.errors import Unreachable, UpgradeError
from model.facts import Backup, Install, ServerFacts
from model.steps import (
    Recheck,
    RecheckServer,
    Restored,
    SavedServerStep,
    ServerStep,
    StagedAgent,
    SurveyServer,
    Switched,
    SwitchServer,
    VerifyServer,
)


class AgentKind(Protocol):
    """One way in which agents are installed. Every step may be repeated; it raises the errors that the activities below
    name.
    """

    async def survey(self, host: Host, message: SurveyServer, machine: Machine) -> ServerFacts:
        """See `survey_server`."""

    async def recheck(self, host: Host, step: RecheckServer) -> Recheck:
        """See `recheck_server`."""

    async def back_up(self, host: Host, step: ServerStep) -> Backup:
        """See `back_up_server`."""

    async def stage(self, host: Host, step: ServerStep) -> StagedAgent:
        """See `stage_server`."""

    async def switch(self, host: Host, step: SwitchServer) -> Switched:
        """See `switch_server`."""

    async def restore(self, host: Host, step: SavedServerStep) -> Restored:
        """See `restore_server`."""

    async def journal(self, host: Host, verify: VerifyServer) -> AgentJournal:
        """What the agent has logged since its switch: one half of the proof. Raises HostError."""

    def log_command(self, verify: VerifyServer) -> str:
        """The command with which a person reads that log."""


class AgentKinds:
    """All kinds. One instance per worker, because they cache downloads."""

    def __init__(self) -> None:
        self._systemd, self._compose, self._core_project = Systemd(), ComposeAgent(), CoreProjectAgent()

    def of(self, facts: ServerFacts) -> AgentKind:
        """The kind of this agent."""
        if facts.in_core_project:
            return self._core_project
        return self._compose if facts.install is Install.CONTAINER else self._systemd

    def found(self, agent: FoundAgent | None, known: ServerFacts | None) -> AgentKind:
        """The kind of an agent that is surveyed; where none was found, systemd says so."""
        if known is not None and known.in_core_project:
            return self._core_project
        return self._compose if agent is not None and agent.install is Install.CONTAINER else self._systemd


class Agents:
    """Steps on servers."""

    def __init__(self, hosts: Hosts) -> None:
        self._hosts = hosts
        self._kinds = AgentKinds()

    @activity.defn
    async def survey_server(self, message: SurveyServer) -> ServerFacts:
        """Survey the agent and its machine. Errors are returned as findings, never raised."""
        try:
            host = await self._hosts.get(message.server.host)
            machine = await read_machine(host, message)
            facts = await self._kinds.found(machine.agent, message.known).survey(host, message, machine)
            return replace(facts, findings=(*facts.findings, *machine.findings))
        except UpgradeError as error:
            finding = from_error(message.server.name, error)
            return ServerFacts(name=message.server.name, reachable=False, findings=(finding,))

    @activity.defn
    async def recheck_server(self, step: RecheckServer) -> Recheck:
        """Differences from the facts of the plan. Raises HostError."""
        host = await self._hosts.get(step.server.host)
        return await self._kinds.of(step.facts).recheck(host, step)

    @activity.defn
    async def back_up_server(self, step: ServerStep) -> Backup:
        """Save what a restore needs in the run folder, with restore.sh. Raises PlanChanged, HostError.

        A second call, also by a later attempt, finds the finished folder and returns the same.
        """
        host = await self._hosts.get(step.server.host)
        return await self._kinds.of(step.facts).back_up(host, step)

    @activity.defn
    async def check_server_rollback(self, step: SavedServerStep) -> Recheck:
        """Which of the saved files are missing or different. An unreachable host is reported, not raised."""
        try:
            drift = await self._missing(step)
        except Unreachable:
            # A connection that drops once does not mean that the host is unreachable.
            await asyncio.sleep(step.timing.poll.total_seconds())
            try:
                drift = await self._missing(step)
            except Unreachable as error:
                return Recheck(unreachable=error.what)
        return Recheck(drift=drift)

    async def _missing(self, step: SavedServerStep) -> tuple[str, ...]:
        return await missing_for_rollback(await self._hosts.get(step.server.host), step)

    @activity.defn
    async def stage_server(self, step: ServerStep) -> StagedAgent:
        """Put the target's binary or image on the host without using it yet. Raises DownloadFailed, ArtifactError,
        HostError.
        """
        host = await self._hosts.get(step.server.host)
        return await self._kinds.of(step.facts).stage(host, step)

    @activity.defn
    async def switch_server(self, step: SwitchServer) -> Switched:
        """Start the new version with Core's key; proven by the agent's own log.

        Raises PlanChanged (nothing was changed), AgentNotStarted, ConfigNotLoaded (both: restore it), HostError.
        """
        host = await self._hosts.get(step.server.host)
        return await self._kinds.of(step.facts).switch(host, step)

    @activity.defn
    async def restore_server(self, step: SavedServerStep) -> Restored:
        """Restore the old version with the run folder's restore.sh. Harmless where nothing was switched. Raises
        HostError.
        """
        host = await self._hosts.get(step.server.host)
        await return_address(self._hosts, host, step)
        return await self._kinds.of(step.facts).restore(host, step)
