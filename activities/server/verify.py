"""The decisive proof: Core is connected to the agent in its new version, authenticated by key.

`Ok` with the right version proves neither: Core reports it for up to one monitoring interval after an agent has
stopped, and a v2 agent with only a passkey is `Ok` too. So three proofs are required, each made after the switch: the
agent's own line `Logged in to Komodo Core`, no login by passkey since, and Core's view, unchanged one interval later.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TypeVar

from temporalio import activity

from activities.core.access import core_api, parse_time
from activities.heartbeat import send_heartbeat
from activities.server.agents import AgentKinds
from activities.server.auto_rollback import read_timer, refuse_rolled_back
from activities.server.survey import AgentJournal
from hosts.ssh.pool import Hosts
from komodo import logs
from komodo.core.answers import ServerView
from komodo.core.api import CoreApi
from model.errors import AgentNotStarted, CoreAnswered, CoreApiError, CoreRefused, HostError, NotProven, UpgradeError
from model.steps import AutoRollback, Proof, VerifyServer

_T = TypeVar("_T")
TICK_SLACK = timedelta(seconds=2)
"""Longer than one monitoring interval: Core checks each server in turn."""
WHOLE_SECOND = timedelta(seconds=1)
"""The start's time is cut to whole seconds; both Core's statistics and the start are measured by the server's own
clock.
"""
NOT_BY_CORE = "that Core itself sees the server as Ok: there is no API key (Settings, Profile, New Api Key in Komodo)"


@dataclass(frozen=True, slots=True)
class _Observation:
    """One observation from both sides: the login line that the journal proves, and what is still missing."""

    line: str
    why: str
    fresh: bool = False
    """Core's statistics are newer than the switch."""


def _patience(verify: VerifyServer) -> timedelta:
    """`core_sees`; for a rollback at least two of Core's checks: v1 checks once per interval, v2 retries every 5 s."""
    sees = verify.fleet.timing.core_sees
    return sees if verify.key else max(sees, 2 * verify.core.monitoring_interval + TICK_SLACK)


class Verify:
    """Proves one server with new evidence."""

    def __init__(self, hosts: Hosts) -> None:
        self._hosts = hosts
        self._kinds = AgentKinds()

    @activity.defn
    async def verify_server(self, verify: VerifyServer) -> Proof:
        """Wait until the server is proven, at most `timing.core_sees`. Without an API key the agent's journal is the
        only proof.

        Raises NotProven with the best reason and its hint, AgentNotStarted when the agent has stopped, CoreRefused.
        """
        if verify.core.api and verify.server.name:
            async with core_api(self._hosts, verify.fleet.core, verify.core) as api:
                return await self._until_proven(verify, api)
        if not verify.key:
            # A v1 agent prints no login: without Core's view the only proof is that it runs.
            return await self._old_agent_alone(verify)
        return await self._until_proven(verify, None)

    async def _until_proven(self, verify: VerifyServer, api: CoreApi | None) -> Proof:
        timing, loop = verify.fleet.timing, asyncio.get_running_loop()
        tick = timedelta() if api is None else verify.core.monitoring_interval + TICK_SLACK
        # The limit applies to the first success; the confirmation one interval later may take longer.
        end = loop.time() + _patience(verify).total_seconds()
        good_since: float | None = None
        confirmed = datetime.now(UTC)
        observed = _Observation("", "nothing was seen yet")
        while True:
            send_heartbeat()
            observed = await self._observe(verify, api)
            now = loop.time()
            if observed.why:
                good_since = None
                if verify.server.auto_rollback and verify.key and not verify.facts.in_core_project:
                    await self._not_restored(verify)
            else:
                if good_since is None:
                    good_since, confirmed = now, datetime.now(UTC)
                if observed.fresh or now - good_since >= tick.total_seconds():
                    return await self._proof(verify, api, observed, confirmed)
            if now >= end and good_since is None:
                raise self._not_proven(verify, observed)
            await asyncio.sleep(timing.poll.total_seconds())

    async def _not_restored(self, verify: VerifyServer) -> None:
        """Raises AutoRolledBack where the host's automatic rollback timer was faster than Core."""
        found = await _patient(lambda: self._auto_rollback(verify))
        if isinstance(found, AutoRollback):
            refuse_rolled_back(found, verify.server.name, verify.expected_version)

    async def _auto_rollback(self, verify: VerifyServer) -> AutoRollback:
        host = await self._hosts.get(verify.server.host)
        return await read_timer(host, verify.op.folder(verify.server.host.state_dir))

    async def _observe(self, verify: VerifyServer, api: CoreApi | None) -> _Observation:
        journal = await _patient(lambda: self._journal(verify))
        if isinstance(journal, str):
            return _Observation("", journal)
        line, why = _from_journal(verify, journal)
        if api is None or (why and verify.key and not journal.log.failures):
            return _Observation(line, why)
        seen = await _patient(lambda: _from_core(verify, api))
        if isinstance(seen, str):
            return _Observation(line, seen)
        core_why, fresh = seen
        # Core's own message names the reason better than "no login yet".
        return _Observation(line, core_why if core_why and not journal.log.failures else why or core_why, fresh)

    async def _journal(self, verify: VerifyServer) -> AgentJournal:
        host = await self._hosts.get(verify.server.host)
        return await self._kinds.of(verify.facts).journal(host, verify)

    async def _old_agent_alone(self, verify: VerifyServer) -> Proof:
        journal = await self._journal(verify)
        if not journal.runs or journal.log.version != verify.expected_version:
            raise AgentNotStarted(
                f"{verify.expected_version} does not run: {journal.log.reason or 'its journal has no such version'}",
                host=verify.server.name,
                hint=logs.hint(journal.log.reason),
            )
        line = next((line for line in journal.log.proof if "version:" in line), "")
        return Proof(by_core=False, line=line, confirmed_at=datetime.now(UTC), unverified=(NOT_BY_CORE,))

    async def _proof(
        self, verify: VerifyServer, api: CoreApi | None, observed: _Observation, confirmed: datetime
    ) -> Proof:
        return Proof(
            by_core=api is not None,
            line=observed.line,
            confirmed_at=confirmed,
            unmanaged=await self._unmanaged(verify, confirmed) if api is not None else timedelta(),
            unverified=() if api is not None else (NOT_BY_CORE,),
        )

    async def _unmanaged(self, verify: VerifyServer, confirmed: datetime) -> timedelta:
        """How long Core did not see the server. A v1 agent is unmanaged from the stop of v1 Core, not from its own
        switch.

        The time is measured from when this run stopped Core, by its host's clock. Where an earlier run upgraded Core,
        from the server's own switch at the latest.
        """
        host = await self._hosts.get(verify.fleet.core.host)
        noted = await host.read(f"{verify.op.folder(verify.fleet.core.host.state_dir)}/core-stopped-at")
        if noted is None:
            return max(confirmed - verify.switched.started_at, timedelta())
        ago = await host.clock() - parse_time(noted.data.decode())
        return max(ago - (datetime.now(UTC) - confirmed), timedelta())

    def _not_proven(self, verify: VerifyServer, observed: _Observation) -> NotProven:
        waited = _patience(verify).total_seconds()
        see = self._kinds.of(verify.facts).log_command(verify)
        running = f"the agent {verify.expected_version} runs, with its config" if verify.key else "the old agent runs"
        return NotProven(
            f"Core has not confirmed the server within {waited:g} s: {observed.why}",
            host=verify.server.name,
            residue=running,
            hint=logs.hint(observed.why) or f"check `{see}` and the Server's page in Komodo, then retry",
            waited=True,
        )


async def _patient(ask: Callable[[], Awaitable[_T]]) -> _T | str:
    """The answer, or the text of an error that may be temporary: one failed request is not yet a failure."""
    try:
        return await ask()
    except CoreRefused:
        raise
    except (CoreApiError, HostError) as error:
        if isinstance(error, HostError) and not error.transient:
            raise
        return error.what


def _from_journal(verify: VerifyServer, journal: AgentJournal) -> tuple[str, str]:
    """(the line that proves it, what is missing)"""
    log = journal.log
    if not journal.runs:
        return "", f"the agent does not run: {log.reason or 'its journal gives no reason'}"
    if log.version != verify.expected_version:
        return "", f"the running agent says version {log.version or '(none)'}, not {verify.expected_version}"
    if not verify.key:
        return next((line for line in log.proof if "version:" in line), ""), ""
    if log.unparsed:
        known = [what for what in log.unparsed if ".bak" not in what]
        if known:
            return "", f"the agent skipped its config {known[0]}: it is open to any Core"
    if not journal.accepts(verify.key):
        return "", "the agent runs without Core's key in core_public_keys"
    if log.passkeys_used:
        return "", "the agent logged Core in by passkey, not by key: Authenticating using Passkeys"
    if ours := [login for login in log.logins if _is_ours(verify, login)]:
        return ours[-1].line, ""
    if not log.logins:
        return "", log.failures[-1] if log.failures else "the agent's journal has no login of Core yet"
    last = log.logins[-1]
    if last.server:
        return "", f"the agent connects as the Server {last.server}, not as {verify.server.name}"
    return "", f"another Core logged in: {last.core}, not {verify.core.host_name}"


def _is_ours(verify: VerifyServer, login: logs.Login) -> bool:
    """Where the agent connects, the line names the address that it uses and the Server that it is, else Core's host."""
    if login.server:
        return login.server == verify.server.name
    return verify.core.host_name in ("", login.core)


async def _from_core(verify: VerifyServer, api: CoreApi) -> tuple[str, bool]:
    """(what Core misses, whether its numbers are younger than the switch)"""
    views = {view.name: view for view in await api.list_servers()}
    name = verify.server.name
    view = views.get(name)
    if view is None:
        return f"Core knows no Server named {name}", False
    if why := _missing(verify, view):
        return why, False
    try:
        refreshed = await api.server_stats_at(name)
    except CoreRefused:
        raise
    except UpgradeError:
        # stats_monitoring = false, or no statistics yet: in that case only waiting can tell.
        refreshed = None
    if why := await silent(api, name):
        return why, False
    return "", refreshed is not None and refreshed > verify.switched.started_at + WHOLE_SECOND


async def silent(api: CoreApi, server: str) -> str:
    """Why the agent does not answer Core's requests; empty: it does. An agent can stay logged in while it hangs."""
    try:
        await api.ask_agent(server)
    except CoreAnswered as error:
        return f"it is connected, but does not answer Core's requests: {error.what}"
    return ""


def _missing(verify: VerifyServer, view: ServerView) -> str:
    if view.state == "Disabled":
        return "the Server is disabled in Komodo: server not enabled"
    if view.state != "Ok":
        if view.err:
            return f"Core says {view.state}: {logs.cleaned(view.err)}"
        v2 = view.has_err_field and verify.key
        hint = " and gives no reason; if all servers are so, KOMODO_HOST is no absolute URL" if v2 else ""
        return f"Core says {view.state}{hint}"
    if view.version != verify.expected_version:
        return f"Core sees version {view.version or '(none)'}, not {verify.expected_version}"
    return ""
