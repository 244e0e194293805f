"""The run folders on the hosts: what they can undo, read without Temporal's history, and their removal on request."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from temporalio import activity

from activities.core.access import log_of
from activities.database.dumps import PROOF, read_proof
from activities.fleet import manifest
from activities.server.survey import agent_state, scope_of
from hosts.exec.script import Script, combine, parse
from hosts.host import Host
from hosts.ssh.pool import Hosts
from komodo.logs import last_run, parse_run
from model.errors import Unreachable, UpgradeError
from model.facts import CoreFacts
from model.fleet.spec import HostSpec, slug
from model.run_folders import CORE, Cleaned, CleanHost, HostFolders, SavedChange, ScanHost
from model.steps import Done, ReleaseHosts

SCAN_TIMEOUT = timedelta(minutes=5)
"""Long enough to compute digests of the binaries in some folders on a slow disk."""
_LAST_JOBS = "30"
"""Seconds that the release of a host waits: a retry may have the result of a job before the job itself has ended."""

Output = Mapping[str, Sequence[str]]


class Folders:
    """Run folders of one fleet, on one host at a time."""

    def __init__(self, hosts: Hosts) -> None:
        self._hosts = hosts

    @activity.defn
    async def scan_run_folders(self, ask: ScanHost) -> HostFolders:
        """Every run folder of the fleet on this host, oldest first. Problems that a person must see are returned, never
        raised.
        """
        try:
            try:
                return await self._scan(ask)
            except Unreachable:
                # A connection that drops during a scan says nothing about the host.
                return await self._scan(ask)
        except UpgradeError as error:
            return HostFolders(name=_host_of(ask)[0], problem=_describe(error))

    async def _scan(self, ask: ScanHost) -> HostFolders:
        name, spec = _host_of(ask)
        host = await self._hosts.get(spec)
        script = Script.load(
            "komodo.sh", "fleet/survey_run_folders.sh", state_dir=spec.state_dir, fleet=slug(ask.fleet)
        )
        output = parse((await host.run(script, timeout=SCAN_TIMEOUT)).text)
        found = {change: of for change, of in _by_change(output).items() if ask.change in ("", change)}
        changes = [await _change(host, ask, change, of) for change, of in found.items()]
        lock = next(iter(output.get("lock", [])), "")
        return HostFolders(name=name, changes=tuple(changes), running=await _running(host, ask, changes), lock=lock)

    @activity.defn
    async def clean_host(self, ask: CleanHost) -> Cleaned:
        """Remove image pins, their images and the folders; keep what is in use. Raises HostError, HostLocked.

        Removing is the only change that runs attached: it can be repeated if it was interrupted, and a job's own state
        would be in the folder that is removed.
        """
        _, spec = _host_of(ask)
        host, unwanted = await self._hosts.get(spec), ask.unwanted
        removed: list[str] = []
        # Remove nothing while another run is using the host.
        await host.discard(slug(ask.fleet), change=ask.change)
        if unwanted.image_pins:
            remove = Script.load("komodo.sh", "fleet/remove_image_pins.sh", *unwanted.image_pins)
            done = await host.run(remove, timeout=SCAN_TIMEOUT)
            removed += parse(done.text).get("removed", [])
        removed += await host.discard(slug(ask.fleet), *unwanted.changes, change=ask.change)
        return Cleaned(name=unwanted.name, removed=tuple(removed))

    @activity.defn
    async def release_host(self, release: ReleaseHosts) -> Done:
        """Remove staged leftovers and image pins, and release the host's lock. Backups are kept. Raises HostError."""
        facts: list[str] = []
        targets: list[tuple[HostSpec, tuple[str, ...]]] = []
        if release.server is not None:
            targets.append((release.server.host, ()))
        if release.core is not None:
            targets.append((release.core.host, release.image_pins))
        for spec, image_pins in targets:
            host = await self._hosts.get(spec)
            folder = release.op.folder(spec.state_dir)
            # Not a job: it would hold the lock that is released here. Doing it partly, or twice, is harmless.
            change = release.op.change
            both = combine(
                Script.load("komodo.sh", "server/release_server.sh", *image_pins, folder=folder),
                Script.load("hosts.sh", "unlock.sh", state=spec.state_dir, change=change, seconds=_LAST_JOBS),
            )
            done = await host.run(both, timeout=timedelta(minutes=5))
            facts += [f"{spec.name}: removed {what}" for what in parse(done.text).get("removed", [])]
        return Done(facts=tuple(facts))


def _host_of(ask: ScanHost | CleanHost) -> tuple[str, HostSpec]:
    if ask.server is not None:
        return ask.server.name, ask.server.host
    if ask.core is None:
        raise ValueError("neither Core nor a server is named")
    return CORE, ask.core.host


def _by_change(output: Output) -> dict[str, dict[str, list[str]]]:
    """The script's lines, by folder and key."""
    found: dict[str, dict[str, list[str]]] = {}
    for line in output.get("at", ()):
        change, key, value = line.split("\t", 2)
        found.setdefault(change, {}).setdefault(key, []).append(value)
    return found


async def _running(host: Host, ask: ScanHost, changes: Sequence[SavedChange]) -> str:
    """The version from the agent's own log. A version without a backup is reported before a rollback disconnects it."""
    if ask.server is None or ask.brief:
        return ""
    saved = next((one.server for one in reversed(changes) if one.server is not None), None)
    if saved is not None and saved.container is not None:
        return parse_run(last_run(await log_of(host, saved.container.service.container))).version
    scope = scope_of(saved) if saved is not None else ""
    return (await agent_state(host, ask.server.unit, scope=scope)).log.version


async def _change(host: Host, ask: ScanHost, change: str, output: Output) -> SavedChange:
    name, spec = _host_of(ask)
    folder = f"{spec.state_dir}/{slug(ask.fleet)}/{change}"
    size = sum(int(one) for one in output.get("bytes", ()))
    base = SavedChange(
        change=change, folder=folder, name=name, bytes=size, image_pins=tuple(output.get("image_pin", ()))
    )
    path = f"{folder}/manifest.json"
    file = await host.read(path) if output.get("manifest") else None
    if file is None:
        return replace(base, state="nothing was saved, so nothing was switched")
    try:
        found = manifest.read(file.data, path, host.spec.name)
        if ask.server is None:
            return await _core_change(host, ask, base, output, found)
        return _server_change(base, output, found, path, host.spec.name)
    except Unreachable:
        raise
    except UpgradeError as error:
        # It cannot be distinguished: until it is known, the new version counts as installed.
        return replace(base, in_place=True, state="cannot be read", problem=_describe(error))


def _server_change(base: SavedChange, output: Output, found: dict[str, object], path: str, host: str) -> SavedChange:
    restored = _latest(output, "restored-at")
    switched = _latest(output, "switched")
    in_place = switched is not None and restored is None
    state = "nothing was switched"
    if restored is not None:
        state = f"restored at {_time(restored)}"
    elif switched is not None:
        state = f"in place since {_time(switched)}"
    return replace(
        base,
        name=str(found.get("server") or base.name),
        version=str(found.get("version", "")),
        target=str(found.get("target", "")),
        taken_at=_taken(found),
        in_place=in_place,
        state=state,
        problem=_broken(output) if in_place else "",
        attempt=_attempt(output),
        backup=manifest.server_backup(found),
        server=manifest.server_facts(found, path, host),
    )


async def _core_change(
    host: Host, ask: ScanHost, base: SavedChange, output: Output, found: dict[str, object]
) -> SavedChange:
    facts = manifest.core_facts(found, f"{base.folder}/manifest.json", host.spec.name)
    started, back = _latest(output, "core-v2-started"), _latest(output, "rolled-back-at")
    half = _half_done(facts, output)
    in_place = back is None and (started is not None or bool(half))
    dump = None
    problem = _broken(output) if in_place else ""
    if started is not None and not ask.brief:
        path = f"{base.folder}/{manifest.DUMP_RECORD}"
        record = await host.read(path)
        if record is None:
            problem = problem or f"{path} is gone: what the final dump holds is unknown"
        else:
            dump = manifest.dump(record.data, path, host.spec.name)
            dump = replace(dump, proof=dump.proof or read_proof(await host.read(f"{dump.path}{PROOF}")))
    state = "nothing was switched"
    if back is not None:
        state = f"restored at {_time(back)}"
    elif started is not None:
        state = f"in place since {_time(started)}"
    elif half:
        state = f"half done: {half}"
    elif output.get("agent-switched"):
        state = "only the agent in Core's project was switched; Core's own upgrade has another folder"
    return replace(
        base,
        version=str(found.get("from", "")),
        target=str(found.get("to", "")),
        taken_at=_taken(found),
        in_place=in_place,
        state=state,
        problem=problem if in_place else "",
        attempt=_attempt(output),
        backup=manifest.core_backup(found, host.spec.name),
        core=facts,
        dump=dump,
        agent_switched=bool(output.get("agent-switched")),
    )


def _half_done(facts: CoreFacts, output: Output) -> str:
    """Steps that began before the new Core was ever started and were not undone: the workflow was terminated at that
    point.
    """
    planned = {(e.path, e.result_sha256) for e in facts.edits}
    for line in output.get("differs", ()):
        path, now = line.split("\t")
        if (path, now) in planned:
            return f"{path} is the new version's, which was never started"
    stopped = bool(output.get("core-stopped-at")) and not output.get("running")
    return "Core was stopped for the upgrade and not started again" if stopped else ""


def _broken(output: Output) -> str:
    broken = output.get("broken", ())
    return f"not what was saved: {', '.join(broken)}" if broken else ""


def _latest(output: Output, key: str) -> int | None:
    return max((int(one) for one in output.get(key, ())), default=None)


def _attempt(output: Output) -> int:
    return max((int(one) for one in output.get("attempt", ())), default=1)


def _taken(found: dict[str, object]) -> datetime:
    return datetime.fromisoformat(str(found["taken_at"]))


def _time(seconds: int) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S} UTC"


def _describe(error: UpgradeError) -> str:
    return error.what + (f"; {error.hint}" if error.hint else "")
