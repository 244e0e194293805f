"""The proof that counts: Core talks to the agent, now, in its new version, and let itself be recognised by key.

`Ok` with the right version proves neither: Core says it for up to one monitoring tick after an agent is gone, and a v2
agent with only a passkey is `Ok` too. So three things are asked for, each made after the switch: the agent's own line
`Logged in to Komodo Core`, no login by passkey since, and Core's view, still so one tick later.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TypeVar

from temporalio import activity

from activities.agent_host import agent_state
from activities.core_access import core_api, log_of, moment
from activities.core_proof import NOTED_LATE
from activities.dead_man import look, refuse_put_back
from activities.signs import beat
from hosts.pool import Hosts
from komodo import logs
from komodo.core_api import CoreApi, ServerView
from komodo.logs import RunLog
from model.errors import AgentNotStarted, CoreApiError, CoreRefused, HostError, NotProven, UpgradeError
from model.steps import DeadMan, Proof, VerifyServer

_T = TypeVar("_T")
TICK_SLACK = timedelta(seconds=2)
"""Over one monitoring interval: Core looks at each server in turn."""
WHOLE_SECOND = timedelta(seconds=1)
"""A start's time is cut to whole seconds; Core's numbers have the server's own clock, as the start has."""
NOT_BY_CORE = "that Core itself sees the server as Ok: there is no API key (Settings, Profile, New Api Key in Komodo)"


@dataclass(frozen=True, slots=True)
class _Journal:
    """What the agent says of itself since the switch."""

    log: RunLog
    runs: bool


@dataclass(frozen=True, slots=True)
class _Look:
    """One look from both sides: the login line where the journal proves it, and why it is not yet enough."""

    line: str
    why: str
    fresh: bool = False
    """Core's numbers are younger than the switch."""


def _patience(verify: VerifyServer) -> timedelta:
    """`core_sees`; on the way back not less than two of Core's looks: v1 looks once an interval, v2 tries every 5 s."""
    sees = verify.fleet.clocks.core_sees
    return sees if verify.key else max(sees, 2 * verify.core.monitoring_interval + TICK_SLACK)


class Verify:
    """Fresh proof of one server."""

    def __init__(self, hosts: Hosts) -> None:
        self._hosts = hosts

    @activity.defn
    async def verify_server(self, verify: VerifyServer) -> Proof:
        """Waits until it is proven, at most `clocks.core_sees`. Without an API key the agent's journal alone speaks.

        Raises NotProven with the best reason and its cure, AgentNotStarted when the agent is gone, CoreRefused.
        """
        if verify.core.api and verify.server.name:
            async with core_api(self._hosts, verify.fleet.core, verify.core) as api:
                return await self._until_proven(verify, api)
        if not verify.key:
            # A v1 agent prints no login: without Core's view there is nothing more than that it runs.
            return await self._old_agent_alone(verify)
        return await self._until_proven(verify, None)

    async def _until_proven(self, verify: VerifyServer, api: CoreApi | None) -> Proof:
        clocks, loop = verify.fleet.clocks, asyncio.get_running_loop()
        tick = timedelta() if api is None else verify.core.monitoring_interval + TICK_SLACK
        # The limit is for the first sight; holding for one tick may take longer.
        end = loop.time() + _patience(verify).total_seconds()
        good_since: float | None = None
        confirmed = datetime.now(UTC)
        look = _Look("", "nothing was seen yet")
        while True:
            beat()
            look = await self._look(verify, api)
            now = loop.time()
            if look.why:
                good_since = None
                if verify.server.dead_man and verify.key and not verify.container:
                    await self._not_put_back(verify)
            else:
                if good_since is None:
                    good_since, confirmed = now, datetime.now(UTC)
                if look.fresh or now - good_since >= tick.total_seconds():
                    return await self._proof(verify, api, look, confirmed)
            if now >= end and good_since is None:
                raise self._not_proven(verify, look)
            await asyncio.sleep(clocks.poll.total_seconds())

    async def _not_put_back(self, verify: VerifyServer) -> None:
        """Raises PutItselfBack where the host's dead-man timer was faster than Core."""
        found = await _patient(lambda: self._dead_man(verify))
        if isinstance(found, DeadMan):
            refuse_put_back(found, verify.server.name, verify.expected_version)

    async def _dead_man(self, verify: VerifyServer) -> DeadMan:
        host = await self._hosts.get(verify.server.host)
        return await look(host, verify.op.folder(verify.server.host.state_dir))

    async def _look(self, verify: VerifyServer, api: CoreApi | None) -> _Look:
        journal = await _patient(lambda: self._journal(verify))
        if isinstance(journal, str):
            return _Look("", journal)
        line, why = _from_journal(verify, journal)
        if api is None or (why and verify.key and not journal.log.failures):
            return _Look(line, why)
        seen = await _patient(lambda: _from_core(verify, api))
        if isinstance(seen, str):
            return _Look(line, seen)
        core_why, fresh = seen
        # Core's own words name the reason better than "no login yet".
        return _Look(line, core_why if core_why and not journal.log.failures else why or core_why, fresh)

    async def _journal(self, verify: VerifyServer) -> _Journal:
        if verify.container:
            host = await self._hosts.get(verify.fleet.core.host)
            text = await log_of(host, verify.container, verify.switched.started_at - NOTED_LATE)
            return _Journal(logs.parse_run(logs.last_run(text)), runs=True)
        host = await self._hosts.get(verify.server.host)
        state = await agent_state(host, verify.server.unit)
        # Of the present run, also where systemd or a person restarted it since: what counts is who is there now.
        return _Journal(state.log, runs=state.active == "active")

    async def _old_agent_alone(self, verify: VerifyServer) -> Proof:
        journal = await self._journal(verify)
        if not journal.runs or journal.log.version != verify.expected_version:
            raise AgentNotStarted(
                f"{verify.expected_version} does not run: {journal.log.reason or 'its journal has no such version'}",
                host=verify.server.name,
                cure=logs.cure(journal.log.reason),
            )
        line = next((line for line in journal.log.proof if "version:" in line), "")
        return Proof(by_core=False, line=line, confirmed_at=datetime.now(UTC), unverified=(NOT_BY_CORE,))

    async def _proof(self, verify: VerifyServer, api: CoreApi | None, look: _Look, confirmed: datetime) -> Proof:
        return Proof(
            by_core=api is not None,
            line=look.line,
            confirmed_at=confirmed,
            dark=await self._dark(verify, confirmed) if api is not None else timedelta(),
            unverified=() if api is not None else (NOT_BY_CORE,),
        )

    async def _dark(self, verify: VerifyServer, confirmed: datetime) -> timedelta:
        """How long Core did not see the server. Not from the server's own switch: a v1 agent is lost with v1 Core.

        From when this change stopped Core, by its host's clock. Where Core was upgraded by an earlier run, at least
        since the server's own switch.
        """
        host = await self._hosts.get(verify.fleet.core.host)
        noted = await host.read(f"{verify.op.folder(verify.fleet.core.host.state_dir)}/core-stopped-at")
        if noted is None:
            return max(confirmed - verify.switched.started_at, timedelta())
        ago = await host.clock() - moment(noted.data.decode())
        return max(ago - (datetime.now(UTC) - confirmed), timedelta())

    def _not_proven(self, verify: VerifyServer, look: _Look) -> NotProven:
        waited = _patience(verify).total_seconds()
        unit = verify.container or verify.server.unit
        see = f"docker logs {unit}" if verify.container else f"journalctl -u {unit} -n 50"
        running = f"the agent {verify.expected_version} runs, with its config" if verify.key else "the old agent runs"
        return NotProven(
            f"Core has not confirmed the server within {waited:g} s: {look.why}",
            host=verify.server.name,
            left=running,
            cure=logs.cure(look.why) or f"look at `{see}` and at the Server's page in Komodo, then retry",
            waited=True,
        )


async def _patient(ask: Callable[[], Awaitable[_T]]) -> _T | str:
    """The answer, or the words of an error that may pass: a look that fails is not yet a failure."""
    try:
        return await ask()
    except CoreRefused:
        raise
    except (CoreApiError, HostError) as error:
        if isinstance(error, HostError) and not error.transient:
            raise
        return error.what


def _from_journal(verify: VerifyServer, journal: _Journal) -> tuple[str, str]:
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
    if log.config is None or verify.key not in (log.config.core_public_keys or ()):
        return "", "the agent runs without Core's key in core_public_keys"
    if log.passkeys_used:
        return "", "the agent logged Core in by passkey, not by key: Authenticating using Passkeys"
    expected = verify.core.host_name
    ours = [login for login in log.logins if not expected or login.core == expected]
    if not ours:
        if log.logins:
            return "", f"another Core logged in: {log.logins[-1].core}, not {expected}"
        return "", log.failures[-1] if log.failures else "the agent's journal has no login of Core yet"
    return ours[-1].line, ""


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
        # stats_monitoring = false, or not there yet: then only time tells.
        refreshed = None
    return "", refreshed is not None and refreshed > verify.switched.started_at + WHOLE_SECOND


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
