"""Fresh proof that Core, and the agent in its own project, run in a version and do their work."""

from __future__ import annotations

from datetime import datetime, timedelta

from activities.core_access import core_api, inspect, log_of, moment, need, tail_of, until
from hosts.host import Host
from hosts.pool import Hosts
from komodo import logs
from komodo.core_api import CoreApi
from komodo.project import Container
from model.errors import AgentNotStarted, CommandFailed, ConfigNotLoaded, CoreAnswered, CoreUnreachable, HostError
from model.facts import ServiceFacts
from model.steps import CoreStep, Switched

_RESTARTS = 3
"""Restarts since `up -d` after which waiting longer is pointless."""
NOTED_LATE = timedelta(seconds=5)
"""So much later than a container's first words its StartedAt may be."""
_SILENT = timedelta(seconds=20)
"""After this, servers that are NotOk without any reason mean that Core's connection task is dead (v2 retries each
agent every 5 s and then says why)."""


async def agent_proof(host: Host, step: CoreStep, agent: ServiceFacts, key: str, started: datetime) -> Switched:
    """What the re-created agent says about itself: version, Core's key loaded, no file skipped."""
    clocks = step.fleet.clocks
    run = logs.RunLog()
    now: Container | None = None
    before = ""

    async def ready() -> bool:
        nonlocal run, now, before
        now = (await inspect(host, agent.container)).get(agent.container)
        held = now is not None and now.running and now.started_at == before
        before = now.started_at if now else ""
        if now is None or not held:
            return False  # one look later it must still be the same run: a crash loop runs at times, too
        run = logs.parse_run(logs.last_run(await log_of(host, agent.container, since(now, started))))
        return run.version == step.fleet.target and bool(run.listening or (run.config and run.config.core_addresses))

    came_up = await until(ready, limit=clocks.agent_ready, poll=clocks.poll)
    if not came_up or now is None:
        log = await log_of(host, agent.container, started) if now else ""
        raise AgentNotStarted(
            f"the periphery of Core's project ({agent.container}) does not run in {step.fleet.target}: "
            f"{run.reason or tail_of(log) or 'it says nothing'}",
            host=host.spec.name,
            left="Core runs in the new version",
            cure=logs.cure(run.reason) or f"`docker logs {agent.container}` on Core's host",
        )
    keys = run.config.core_public_keys if run.config else None
    if run.unparsed or keys is None or key not in keys:
        raise ConfigNotLoaded(
            f"the periphery of Core's project runs without Core's key: {run.reason or f'it loaded {keys}'}",
            host=host.spec.name,
            left="Core runs in the new version; this agent may accept any Core",
            cure=f"is {agent.container}'s environment overridden elsewhere (PERIPHERY_CORE_PUBLIC_KEYS)?",
        )
    return Switched(
        version=run.version,
        invocation=now.id,
        started_at=moment(now.started_at) if now.started_at else started,
        port_silent=timedelta(0),
        lines=run.proof,
    )


async def wait_for_core(hosts: Hosts, host: Host, step: CoreStep, version: str, started: datetime) -> None:
    """Until Core answers in this version and works. Raises CommandFailed with its own words otherwise."""
    service = need(step.facts.core)
    clocks = step.fleet.clocks
    said = "it does not answer"
    broken = before = cure = ""

    async def ready() -> bool:
        nonlocal said, broken, before, cure
        now = (await inspect(host, service.container)).get(service.container)
        if now is None:
            said = f"there is no container {service.container}"
            return False
        if not now.running or now.restarts >= _RESTARTS:
            said = f"it ended with code {now.exit_code} and was restarted {now.restarts} times"
            broken = said if now.restarts >= _RESTARTS else ""
            return bool(broken)
        if version != step.facts.version and now.image_id == service.image_id:
            broken = f"compose started the old image again ({service.image}): it found nothing to change"
            cure = (
                "does another compose file, or a variable, name the image? `docker compose config --images`; then retry"
            )
            return True
        held, before = now.started_at == before, now.started_at
        try:
            async with core_api(hosts, step.fleet.core, step.facts) as api:
                answers = await _version_of(host, service, api, started)
                said = f"it answers as {answers or 'an unknown version'}"
                if answers != version:
                    return False
                if api.has_key:
                    await api.list_servers()
                return held
        except (CoreUnreachable, HostError) as error:
            said = error.what
            return False
        except CoreAnswered as error:
            said = error.what
            return False

    came_up = await until(ready, limit=clocks.core_ready, poll=clocks.poll)
    run = logs.parse_run(logs.last_run(await log_of(host, service.container, started)))
    if came_up and not broken:
        broken = await _dead_connections(hosts, step, version)
        if not broken:
            return
    raise CommandFailed(
        f"Core does not work in {version}: {broken or said}" + (f"; its log: {run.reason}" if run.reason else ""),
        code=1,
        tail=tail_of(await log_of(host, service.container, started)),
        host=host.spec.name,
        left=f"Core's container {service.container} in the files' present version; database not restored",
        cure=cure
        or logs.cure(run.reason)
        or f"`docker logs {service.container}` on Core's host; then retry or roll back",
    )


async def _version_of(host: Host, service: ServiceFacts, api: CoreApi, started: datetime) -> str:
    """v2 says it to everybody; v1 to those with a key, and else in its log."""
    if await api.flavour() is None:
        return ""
    answers = await api.open_version()
    if answers:
        return answers
    if api.has_key:
        return await api.version()
    return logs.parse_run(logs.last_run(await log_of(host, service.container, started))).version


async def _dead_connections(hosts: Hosts, step: CoreStep, version: str) -> str:
    """With a bad KOMODO_HOST v2 answers, but its connection task is dead: servers are NotOk without a reason."""
    if version.startswith("1."):
        return ""
    silent = False

    async def any_word() -> bool:
        nonlocal silent
        async with core_api(hosts, step.fleet.core, step.facts) as api:
            if not api.has_key:
                return True
            servers = [s for s in await api.list_servers() if s.enabled and s.has_err_field]
        silent = bool(servers)
        return not servers or any(s.err or s.state == "Ok" for s in servers)

    limit = max(_SILENT, 2 * step.facts.monitoring_interval)
    if await until(any_word, limit=limit, poll=step.fleet.clocks.poll) or not silent:
        return ""
    return (
        "it answers, but connects to no server and gives no reason: its connection task has ended "
        "(KOMODO_HOST must be an absolute URL such as https://komodo.example.com)"
    )


def since(container: Container, started: datetime | None) -> datetime | None:
    """From where this run is read: a container's log holds all runs of it.

    Docker notes the start when its own work for it is done: on a busy machine a real agent has said by then who it is.
    """
    return moment(container.started_at) - NOTED_LATE if container.started_at else started
