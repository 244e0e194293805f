"""One check of an upgraded fleet, hours later, for problems that appear only with time. Reads only."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from temporalio import activity

from activities.core.access import core_api, facts_in, inspect, parse_time, script
from activities.heartbeat import send_heartbeat
from activities.server.verify import silent
from hosts.exec.script import parse
from hosts.host import Host
from hosts.ssh.pool import Hosts
from komodo.core.answers import Schedule, ServerView
from komodo.core.api import CoreApi
from komodo.core.containers import Container, warn
from komodo.logs import cleaned
from model.facts import Finding
from model.fleet.spec import slug
from model.steps import Done, Operation
from model.text.watch import HEADING, render_watch, watch_json
from model.watch import SaveWatch, StatsAt, WatchCheck, WatchStep

MANY = 10
"""Defunct processes. A few are normal; without init they grow with every git and docker call."""
_READ = timedelta(minutes=1)
_ASKED_AT_ONCE = 8


class Watching:
    """After the upgrade."""

    def __init__(self, hosts: Hosts) -> None:
        self._hosts = hosts

    @activity.defn
    async def watch_fleet(self, step: WatchStep) -> WatchCheck:
        """Zombies below Core's containers, Servers Ok and answering, new stats, and (`backup`) whether the backup ran.

        Raises HostError, CoreApiError, SecretMissing: then this check has no result.
        """
        host = await self._hosts.get(step.fleet.core.host)
        if why := await _superseded(host, step):
            return WatchCheck(superseded=why)
        services = [s for s in (step.core.core, step.core.agent) if s]
        containers = await inspect(host, *(s.container for s in services))
        found = await _zombies(host, list(containers.values()))
        found += [
            warn("not-running", f"{s.container} does not run", f"`docker logs {s.container}`")
            for s in services
            if s.container not in containers or not containers[s.container].running
        ]
        async with core_api(self._hosts, step.fleet.core, step.core) as api:
            version = await api.open_version()
            if version and version != step.fleet.target:
                return WatchCheck(superseded=f"Core is on {version} now, not on {step.fleet.target} any more")
            if not version and await api.flavour() == 1:
                # The upgrade was not rolled back, by this tool or by restore.sh; otherwise its servers' states would
                # only repeat that.
                text = f"Core answers as v1, not as {step.fleet.target}"
                found.append(warn("core-version", text, "find out who restored it, for example a bot that pins images"))
                return WatchCheck(findings=tuple(found), stats=step.before)
            if not api.has_key:
                return WatchCheck(findings=tuple(found))
            views = await api.list_servers()
            found += _not_ok(step, views)
            found += await _silent(step, api, views)
            stats, still = await _stats(step, api)
            found += still
            if step.backup:
                found += await _backup(step, api)
        return WatchCheck(findings=tuple(found), stats=stats)

    @activity.defn
    async def save_watch(self, save: SaveWatch) -> Done:
        """Write the section in report.md and watch.json. Raises HostError."""
        core = save.fleet.core.host
        host = await self._hosts.get(core)
        report = save.report
        folder = Operation(change=report.change, fleet=save.fleet.name, target="core").folder(core.state_dir)
        # Attached, not as a job: a job takes the host's lock, which may belong to the next upgrade by now.
        section = render_watch(report)
        done = await host.run(
            script("fleet/save_watch.sh", folder=folder, heading=HEADING, lines=str(section.count("\n"))),
            data=(section + watch_json(report)).encode(),
            timeout=_READ,
        )
        return Done(facts=tuple(facts_in(done).get("saved", [])))


async def _superseded(host: Host, step: WatchStep) -> str:
    """An upgrade or a rollback is running, or ran meanwhile: its effects must not be reported as problems."""
    folder = Operation(change=step.change, fleet=step.fleet.name, target="core").folder(host.spec.state_dir)
    # By restore.sh, started by anyone; the lock of this upgrade's own rollback has this upgrade's name.
    if back := await host.read(f"{folder}/rolled-back-at"):
        return f"Core was rolled back at {parse_time(back.data.decode()):%Y-%m-%d %H:%M:%S} UTC"
    lock = await host.read(f"{host.spec.state_dir}/lock/owner")
    owner = lock.data.decode().split("\n", 1)[0] if lock else ""
    fleet, _, change = owner.partition(" ")
    if not owner or (fleet, change) == (slug(step.fleet.name), step.change):
        return ""
    return f"the upgrade {change} of the fleet {fleet} is working on Core's host"


async def _zombies(host: Host, containers: list[Container]) -> list[Finding]:
    pids = {str(c.pid): c for c in containers if c.running and c.pid > 1}
    if not pids:
        return []
    output = parse((await host.run(script("fleet/count_zombies.sh", *pids), timeout=_READ)).text)
    found = []
    for line in output.get("zombies", []):
        pid, _, count = line.partition(" ")
        container = pids[pid]
        if int(count) < MANY:
            continue
        hint = "`init: true` in its service, then `up -d`" if not container.init else "inspect them with `ps -ef`"
        why = "" if container.init else ", and it runs without init"
        found.append(warn("zombies", f"{container.name}: {count} defunct processes pile up below it{why}", hint))
    return found


def _not_ok(step: WatchStep, servers: tuple[ServerView, ...]) -> list[Finding]:
    views = {view.name: view for view in servers}
    found = []
    for name in step.servers:
        view = views.get(name)
        if view is None or not view.enabled:
            # A person removed or disabled it in Komodo.
            continue
        if view.state != "Ok":
            why = f": {cleaned(view.err)}" if view.err else ""
            found.append(_of(name, "server-not-ok", f"Core says {view.state}{why}", "check the Server in Komodo"))
        elif view.version and view.version != step.fleet.target:
            text = f"Core sees version {view.version}, not {step.fleet.target}"
            found.append(_of(name, "server-version", text, "who changed it?"))
    return found


async def _silent(step: WatchStep, api: CoreApi, servers: tuple[ServerView, ...]) -> list[Finding]:
    """Agents that are connected and do not answer. Each may take Core's whole timeout, so several are asked at once."""
    connected = [view.name for view in servers if view.name in step.servers and view.state == "Ok"]
    limit = asyncio.Semaphore(_ASKED_AT_ONCE)

    async def ask(name: str) -> Finding | None:
        async with limit:
            send_heartbeat()
            why = await silent(api, name)
            return _of(name, "agent-silent", why, "restart its agent; see its journal") if why else None

    return [finding for finding in await asyncio.gather(*map(ask, connected)) if finding]


async def _stats(step: WatchStep, api: CoreApi) -> tuple[tuple[StatsAt, ...], list[Finding]]:
    """These times come from the servers' own clocks, so they are compared with the last check only, never with our
    clock.
    """
    before = {stats.server: stats.at for stats in step.before}
    stats, found = [], []
    for name in step.servers:
        send_heartbeat()
        at = await api.server_stats_at(name)
        if at is None:
            # stats_monitoring = false, or the server is missing or not Ok, which is reported elsewhere.
            continue
        stats.append(StatsAt(server=name, at=at))
        if name in before and at <= before[name]:
            text = f"its stats have not changed since {at:%Y-%m-%d %H:%M:%S} UTC (its own clock)"
            found.append(_of(name, "stats-still", text, "restart its agent; check its journal for a login of Core"))
    return tuple(stats), found


async def _backup(step: WatchStep, api: CoreApi) -> list[Finding]:
    """v2's own procedure is `Backup Core Database`; a procedure that a person wrote has `backup` in its name."""
    schedules = [s for s in await api.list_schedules() if s.enabled and "backup" in s.name.lower()]
    if not schedules:
        return [warn("no-backup-procedure", "no schedule resembles `Backup Core Database`", "add one in Komodo")]
    updates = {u.target: u for u in reversed(await api.list_updates()) if u.status == "Complete"}
    found = []
    for schedule in schedules:
        update = updates.get(f"{schedule.kind} {schedule.id}")
        ran = schedule.last_run is not None and schedule.last_run >= step.since
        if update is not None and not update.success:
            text = f"the automatic backup `{schedule.name}` ran, and failed"
            found.append(warn("backup-failed", text, "open its last Update in Komodo"))
        elif not ran and update is None:
            found.append(
                warn("backup-not-run", _not_run(schedule), "run it once by hand in Komodo, and check the result")
            )
    return found


def _not_run(schedule: Schedule) -> str:
    next_run = f"; next: {schedule.next_run:%Y-%m-%d %H:%M} UTC" if schedule.next_run else ""
    return f"the automatic backup `{schedule.name}` did not run since the upgrade{next_run}"


def _of(server: str, code: str, text: str, hint: str) -> Finding:
    finding = warn(code, text, hint)
    return Finding(code=code, severity=finding.severity, subject=server, text=text, hint=hint)
