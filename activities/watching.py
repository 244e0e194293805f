"""One look at an upgraded fleet, hours later: what only shows with time. Reads only."""

from __future__ import annotations

from datetime import timedelta

from temporalio import activity

from activities.core_access import core_api, facts_in, inspect, moment, script
from activities.signs import beat
from hosts.host import Host
from hosts.pool import Hosts
from hosts.script import parse
from komodo.core_api import CoreApi, Schedule, ServerView
from komodo.logs import cleaned
from komodo.project import Container, warn
from model.facts import Finding
from model.fleet import slug
from model.steps import Done, Operation
from model.watch import SaveWatch, StatsAt, WatchLook, WatchStep
from model.watch_report import HEADING

MANY = 10
"""Defunct processes. A few are everyday; without init they grow by every git and docker call, for ever."""
_READ = timedelta(minutes=1)


class Watching:
    """After the upgrade."""

    def __init__(self, hosts: Hosts) -> None:
        self._hosts = hosts

    @activity.defn
    async def watch_fleet(self, step: WatchStep) -> WatchLook:
        """Zombies below Core's containers, Servers Ok, stats moving, and (`backup`) whether the backup ran.

        Raises HostError, CoreApiError, SecretMissing: then nothing is known of this hour.
        """
        host = await self._hosts.get(step.fleet.core.host)
        if why := await _superseded(host, step):
            return WatchLook(superseded=why)
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
                return WatchLook(superseded=f"Core is on {version} now, not on {step.fleet.target} any more")
            if not version and await api.flavour() == 1:
                # Nobody rolled it back, by this tool or by restore.sh: its servers' states would only repeat it.
                text = f"Core answers as v1, not as {step.fleet.target}"
                found.append(warn("core-version", text, "who put it back? A bot that pins images, perhaps"))
                return WatchLook(findings=tuple(found), stats=step.before)
            if not api.has_key:
                return WatchLook(findings=tuple(found))
            found += _not_ok(step, await api.list_servers())
            stats, still = await _stats(step, api)
            found += still
            if step.backup:
                found += await _backup(step, api)
        return WatchLook(findings=tuple(found), stats=stats)

    @activity.defn
    async def save_watch(self, save: SaveWatch) -> Done:
        """The section in report.md and watch.json. Raises HostError."""
        core = save.fleet.core.host
        host = await self._hosts.get(core)
        folder = Operation(change=save.change, fleet=save.fleet.name, target="core").folder(core.state_dir)
        # Attached, not as a job: a job takes the host's lock, which belongs to the next upgrade by now.
        section = save.markdown if save.markdown.endswith("\n") else f"{save.markdown}\n"
        done = await host.run(
            script("save_watch.sh"),
            folder,
            HEADING,
            str(section.count("\n")),
            data=(section + save.json).encode(),
            timeout=_READ,
        )
        return Done(facts=tuple(facts_in(done).get("saved", [])))


async def _superseded(host: Host, step: WatchStep) -> str:
    """An upgrade or a rollback is on, or was meanwhile: what it does is not to be reported as trouble."""
    folder = Operation(change=step.change, fleet=step.fleet.name, target="core").folder(host.spec.state_dir)
    # By restore.sh, whoever ran it; the lock of this upgrade's own rollback has this upgrade's name.
    if back := await host.read(f"{folder}/rolled-back-at"):
        return f"Core was rolled back at {moment(back.data.decode()):%Y-%m-%d %H:%M:%S} UTC"
    lock = await host.read(f"{host.spec.state_dir}/lock/owner")
    owner = lock.data.decode().split("\n", 1)[0] if lock else ""
    fleet, _, change = owner.partition(" ")
    if not owner or (fleet, change) == (slug(step.fleet.name), step.change):
        return ""
    return f"the upgrade {change} of the fleet {fleet} works on Core's host"


async def _zombies(host: Host, containers: list[Container]) -> list[Finding]:
    pids = {str(c.pid): c for c in containers if c.running and c.pid > 1}
    if not pids:
        return []
    said = parse((await host.run(script("count_zombies.sh"), *pids, timeout=_READ)).text)
    found = []
    for line in said.get("zombies", []):
        pid, _, count = line.partition(" ")
        container = pids[pid]
        if int(count) < MANY:
            continue
        cure = "`init: true` in its service, then `up -d`" if not container.init else "look at them with `ps -ef`"
        why = "" if container.init else ", and it runs without init"
        found.append(warn("zombies", f"{container.name}: {count} defunct processes pile up below it{why}", cure))
    return found


def _not_ok(step: WatchStep, servers: tuple[ServerView, ...]) -> list[Finding]:
    views = {view.name: view for view in servers}
    found = []
    for name in step.servers:
        view = views.get(name)
        if view is None or not view.enabled:
            # Taken out of Komodo, or disabled there, by a person.
            continue
        if view.state != "Ok":
            why = f": {cleaned(view.err)}" if view.err else ""
            found.append(_of(name, "server-not-ok", f"Core says {view.state}{why}", "look at the Server in Komodo"))
        elif view.version and view.version != step.fleet.target:
            text = f"Core sees version {view.version}, not {step.fleet.target}"
            found.append(_of(name, "server-version", text, "who changed it?"))
    return found


async def _stats(step: WatchStep, api: CoreApi) -> tuple[tuple[StatsAt, ...], list[Finding]]:
    """By the servers' own clocks, so compared with the last look only, never with ours."""
    before = {stats.server: stats.at for stats in step.before}
    stats, found = [], []
    for name in step.servers:
        beat()
        at = await api.server_stats_at(name)
        if at is None:
            # stats_monitoring = false, or the server is gone or not Ok, which is said elsewhere.
            continue
        stats.append(StatsAt(server=name, at=at))
        if name in before and at <= before[name]:
            text = f"its stats stand still since {at:%Y-%m-%d %H:%M:%S} UTC (its own clock)"
            found.append(_of(name, "stats-still", text, "restart its agent; does its journal show a login of Core?"))
    return tuple(stats), found


async def _backup(step: WatchStep, api: CoreApi) -> list[Finding]:
    """v2's own procedure is `Backup Core Database`; one of a person's own has `backup` in its name."""
    schedules = [s for s in await api.list_schedules() if s.enabled and "backup" in s.name.lower()]
    if not schedules:
        return [warn("no-backup-procedure", "no schedule looks like `Backup Core Database`", "add one in Komodo")]
    updates = {u.target: u for u in reversed(await api.list_updates()) if u.status == "Complete"}
    found = []
    for schedule in schedules:
        update = updates.get(f"{schedule.kind} {schedule.id}")
        ran = schedule.last_run is not None and schedule.last_run >= step.since
        if update is not None and not update.success:
            text = f"the automatic backup `{schedule.name}` ran, and failed"
            found.append(warn("backup-failed", text, "open its last Update in Komodo"))
        elif not ran and update is None:
            found.append(warn("backup-not-run", _not_run(schedule), "run it once by hand in Komodo, and look at it"))
    return found


def _not_run(schedule: Schedule) -> str:
    next_run = f"; next: {schedule.next_run:%Y-%m-%d %H:%M} UTC" if schedule.next_run else ""
    return f"the automatic backup `{schedule.name}` did not run since the upgrade{next_run}"


def _of(server: str, code: str, text: str, cure: str) -> Finding:
    finding = warn(code, text, cure)
    return Finding(code=code, severity=finding.severity, subject=server, text=text, cure=cure)
