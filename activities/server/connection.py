"""From an inbound to an outbound connection, after the switch to v2, and back.

No onboarding key is needed: Core is given the public key that the agent has made, and forgets the Server's address.
"""

from __future__ import annotations

import contextlib
import json
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta

from temporalio import activity

from activities.core.access import core_api
from activities.heartbeat import attach, invalidate
from activities.server.pins import keys_in_files
from activities.server.survey import AgentJournal, AgentState, agent_state, scope_of, state_of
from hosts.exec.script import Script, parse
from hosts.host import Host
from hosts.ssh.pool import Hosts
from komodo import logs
from komodo.core.api import CoreApi
from komodo.files.edit_set import digest
from komodo.files.outbound_toml import connect_in, connect_out
from komodo.public_key import validate
from model.errors import AgentNotStarted, ConfigNotLoaded, HostError, PlanChanged
from model.steps import ConnectServer, Done, SavedServerStep, Switched

STOP = timedelta(seconds=100)
"""`systemctl stop` may take 90 s (TimeoutStopSec)."""
RECORD = "connection.json"


@dataclass(frozen=True, slots=True)
class _Before:
    """What Core knew of the Server while it connected to it, and the agent's own key."""

    id: str
    address: str
    external_address: str
    agent_key: str


class Connections:
    """Which side opens the connection of a server."""

    def __init__(self, hosts: Hosts) -> None:
        self._hosts = hosts

    @activity.defn
    async def connect_server(self, step: ConnectServer) -> Switched:
        """The agent connects to Core by itself. A repeated call attaches to its jobs, or finds what is done.

        Raises PlanChanged (nothing was changed), AgentNotStarted, ConfigNotLoaded (both: `disconnect_server`).
        """
        host = await self._hosts.get(step.server.host)
        path = _config_path(step)
        async with _api(self._hosts, step) as api:
            before = await _remember(host, api, step)
            text = await _read(host, path)
            after = connect_out(text, step.facts.connect_to, step.server.name)
            await _job(host, step, "connect-stop", "server/stop_agent.sh")
            await api.pin_server_key(before.id, before.agent_key)
            await api.set_server_address(before.id, "", before.external_address)
        inbound = connect_in(after, step.facts.connect_to, step.server.name)
        return await _start(host, step, "connect", path, inbound, after)

    @activity.defn
    async def disconnect_server(self, step: ConnectServer) -> Done:
        """Core connects to the agent again, under the address that it had. Harmless where nothing was changed."""
        host = await self._hosts.get(step.server.host)
        before = await _remembered(host, step)
        if before is None:
            return Done()
        await invalidate(host, step.folder, *_ids(step, "connect"), change=step.op.change, patience=STOP)
        path = _config_path(step)
        text = await _read(host, path)
        inbound = connect_in(text, step.facts.connect_to, step.server.name)
        await _job(host, step, "disconnect-stop", "server/stop_agent.sh")
        async with _api(self._hosts, step) as api:
            await api.set_server_address(before.id, before.address, before.external_address)
        await _start(host, step, "disconnect", path, text, inbound)
        await invalidate(host, step.folder, *_ids(step, "disconnect"), change=step.op.change, patience=STOP)
        return Done()


async def return_address(hosts: Hosts, host: Host, step: SavedServerStep) -> None:
    """Before the old version is restored: Core gets the address again that it had, if it has lost it."""
    if step.core is None or (before := await _remembered(host, step)) is None:
        return
    await invalidate(host, step.folder, *_ids(step, "connect"), change=step.op.change, patience=STOP)
    async with _api(hosts, step) as api:
        await api.set_server_address(before.id, before.address, before.external_address)


def _ids(step: SavedServerStep, name: str) -> tuple[str, ...]:
    return (*step.op.ids(f"{name}-stop"), *step.op.ids(f"{name}-start"))


def _config_path(step: ConnectServer) -> str:
    edited = [edit.path for edit in step.facts.edits if edit.kind == "periphery-config"]
    return (edited or list(step.facts.config_paths))[-1]


async def _read(host: Host, path: str) -> str:
    file = await host.read(path)
    if file is None:
        raise PlanChanged(f"{path} is gone", host=host.spec.name, residue="the connection is unchanged")
    return file.data.decode()


async def _remember(host: Host, api: CoreApi, step: ConnectServer) -> _Before:
    """What a return needs, written to the run folder before anything is changed; the first record stays."""
    if (remembered := await _remembered(host, step)) is not None:
        return remembered
    known = await api.server(step.server.name)
    if not known.address:
        raise PlanChanged(
            f"Core has no address of {step.server.name} any more",
            host=host.spec.name,
            residue="the connection is unchanged",
            hint="it was changed since the plan was made: plan and approve again",
        )
    own = (await agent_state(host, step.facts.unit, scope=scope_of(step.facts))).log.public_key
    before = _Before(known.id, known.address, known.external_address, validate(own))
    note = Script.load("komodo.sh", "fleet/write_note.sh", path=f"{step.folder}/{RECORD}")
    data = json.dumps(asdict(before)).encode()
    await attach(host, step.op.id("connect-note"), step.folder, note, data=data, change=step.op.change, timeout=STOP)
    return before


async def _remembered(host: Host, step: SavedServerStep) -> _Before | None:
    saved = await host.read(f"{step.folder}/{RECORD}")
    return _Before(**json.loads(saved.data)) if saved else None


def _api(hosts: Hosts, step: SavedServerStep) -> contextlib.AbstractAsyncContextManager[CoreApi]:
    if step.core is None:
        raise HostError("this step was made without access to Core", host=step.server.name)
    return core_api(hosts, step.core.spec, step.core.facts)


async def _job(host: Host, step: ConnectServer, name: str, script: str) -> None:
    mark = f"{step.folder}/{name.partition('-')[0]}-{step.op.attempt}"
    loaded = Script.load("komodo.sh", script, mark=mark, unit=step.facts.unit, scope=scope_of(step.facts))
    await attach(host, step.op.id(name), step.folder, loaded, change=step.op.change, timeout=2 * STOP)


async def _start(host: Host, step: ConnectServer, name: str, path: str, base: str, result: str) -> Switched:
    script = Script.load(
        "komodo.sh",
        "server/start_agent.sh",
        mark=f"{step.folder}/{name}-{step.op.attempt}",
        unit=step.facts.unit,
        scope=scope_of(step.facts),
        version=step.target,
        wait=str(max(1, round(step.timing.agent_ready.total_seconds()))),
        config=path,
        base=digest(base),
        result=digest(result),
    )
    done = await attach(
        host,
        step.op.id(f"{name}-start"),
        step.folder,
        script,
        data=result.encode(),
        change=step.op.change,
        timeout=2 * STOP + step.timing.agent_ready,
        then=Script.load("komodo.sh", "server/agent_journal.sh", unit=step.facts.unit, scope=scope_of(step.facts)),
    )
    output, state = parse(done.text), state_of(parse(done.after.decode(errors="replace")))
    await _prove(host, step, state, output["settled"][0])
    return Switched(
        version=state.log.version,
        invocation=state.invocation,
        started_at=datetime.fromtimestamp(int(output["started_at"][0]), UTC),
        port_downtime=timedelta(seconds=float(output["downtime"][0])),
        lines=tuple(line for line in state.log.proof if "Logged in to" not in line),
    )


async def _prove(host: Host, step: ConnectServer, state: AgentState, settled: str) -> None:
    log, left = state.log, f"{step.facts.unit} is {state.active or 'unknown'}, its Server in Core may have no address"
    if settled != "yes" or state.active != "active" or log.version != step.target:
        reason = log.reason or f"its journal does not show version {step.target} ({settled})"
        raise AgentNotStarted(
            f"{step.target} does not run: {reason}", host=host.spec.name, residue=left, hint=logs.hint(reason)
        )
    pins = log.config.pins if log.config else ()
    if not AgentJournal(log, runs=True, file_keys=await keys_in_files(host, pins)).accepts(step.key):
        raise ConfigNotLoaded("the agent runs without Core's key", host=host.spec.name, residue=left)


async def try_address(host: Host, address: str) -> tuple[str, str]:
    """(what Core answers there, why it cannot be reached), from this host. Raises HostError."""
    url = address.replace("ws", "http", 1) if address.startswith("ws") else address
    done = parse((await host.run(Script.load("komodo.sh", "server/try_url.sh", url=url), root=False)).text)
    if problem := done.get("problem"):
        return "", problem[0]
    if not done.get("answer"):
        raise HostError("try_url.sh has printed nothing", host=host.spec.name)
    return done["answer"][0].strip(), ""
