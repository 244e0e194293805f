"""Proof that Core, and the agent in its own project, run the requested version and work."""

from __future__ import annotations

from datetime import datetime, timedelta

from activities.core.access import core_api, inspect, log_of, tail_of, until
from hosts.host import Host
from hosts.ssh.pool import Hosts
from komodo import logs
from komodo.core.api import CoreApi
from model.errors import CommandFailed, CoreAnswered, CoreUnreachable, HostError
from model.facts import ServiceFacts
from model.steps import CoreStep

_RESTARTS = 3
"""After this many restarts since `up -d`, waiting longer is pointless."""
_NO_REASON = timedelta(seconds=20)
"""If servers are still NotOk without any reason after this time, Core's connection task is dead: v2 retries each agent
every 5 s and then gives a reason.
"""


async def wait_for_core(hosts: Hosts, host: Host, step: CoreStep, version: str, started: datetime) -> None:
    """Wait until Core answers with this version and works. Raises CommandFailed with Core's own output otherwise."""
    service = step.facts.core
    timing = step.fleet.timing
    problem = "it does not answer"
    broken = before = hint = ""

    async def ready() -> bool:
        nonlocal problem, broken, before, hint
        now = (await inspect(host, service.container)).get(service.container)
        if now is None:
            problem = f"there is no container {service.container}"
            return False
        if not now.running or now.restarts >= _RESTARTS:
            problem = f"it ended with code {now.exit_code} and was restarted {now.restarts} times"
            broken = problem if now.restarts >= _RESTARTS else ""
            return bool(broken)
        if version != step.facts.version and now.image_id == service.image_id:
            broken = f"compose started the old image again ({service.image}): it found nothing to change"
            hint = (
                "does another compose file, or a variable, name the image? `docker compose config --images`; then retry"
            )
            return True
        held, before = now.started_at == before, now.started_at
        try:
            async with core_api(hosts, step.fleet.core, step.facts) as api:
                answers = await _version_of(host, service, api, started)
                problem = f"it answers as {answers or 'an unknown version'}"
                if answers != version:
                    return False
                if api.has_key:
                    await api.list_servers()
                return held
        except (CoreUnreachable, HostError) as error:
            problem = error.what
            return False
        except CoreAnswered as error:
            problem = error.what
            return False

    came_up = await until(ready, limit=timing.core_ready, poll=timing.poll)
    run = logs.parse_run(logs.last_run(await log_of(host, service.container, started)))
    if came_up and not broken:
        broken = await _dead_connections(hosts, step, version)
        if not broken:
            return
    raise CommandFailed(
        f"Core does not work in {version}: {broken or problem}" + (f"; its log: {run.reason}" if run.reason else ""),
        code=1,
        tail=tail_of(await log_of(host, service.container, started)),
        host=host.spec.name,
        residue=f"Core's container {service.container} in the files' present version; database not restored",
        hint=hint
        or logs.hint(run.reason)
        or f"`docker logs {service.container}` on Core's host; then retry or roll back",
    )


async def _version_of(host: Host, service: ServiceFacts, api: CoreApi, started: datetime) -> str:
    """v2 answers this to everyone; v1 only to clients with a key, and otherwise in its log."""
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
    unexplained = False

    async def any_word() -> bool:
        nonlocal unexplained
        async with core_api(hosts, step.fleet.core, step.facts) as api:
            if not api.has_key:
                return True
            servers = [s for s in await api.list_servers() if s.enabled and s.has_err_field]
        unexplained = bool(servers)
        return not servers or any(s.err or s.state == "Ok" for s in servers)

    limit = max(_NO_REASON, 2 * step.facts.monitoring_interval)
    if await until(any_word, limit=limit, poll=step.fleet.timing.poll) or not unexplained:
        return ""
    return (
        "it answers, but connects to no server and gives no reason: its connection task has ended "
        "(KOMODO_HOST must be an absolute URL such as https://komodo.example.com)"
    )
