"""The run folders on the hosts: what they can undo, read without any history; and taking them away when asked to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from temporalio import activity

from activities import manifests
from activities.agent_host import agent_state
from activities.dumps import PROOF, read_proof
from hosts.host import Host
from hosts.pool import Hosts
from hosts.script import Script, parse
from model.errors import Unreachable, UpgradeError
from model.facts import CoreFacts
from model.fleet import HostSpec, slug
from model.folders import CORE, Cleaned, CleanHost, HostFolders, LookAtFolders, SavedChange

LOOK = timedelta(minutes=5)
"""Binaries of some folders are digested, on a slow disk."""

Said = Mapping[str, Sequence[str]]


class Folders:
    """Of one fleet, on one host at a time."""

    def __init__(self, hosts: Hosts) -> None:
        self._hosts = hosts

    @activity.defn
    async def look_at_folders(self, ask: LookAtFolders) -> HostFolders:
        """Every run folder of the fleet on this host, oldest first. Never raises for what a person must be told."""
        try:
            try:
                return await self._look(ask)
            except Unreachable:
                # A line that is cut in the middle of a look says nothing of the host.
                return await self._look(ask)
        except UpgradeError as error:
            return HostFolders(name=_whom(ask)[0], problem=_words(error))

    async def _look(self, ask: LookAtFolders) -> HostFolders:
        name, spec = _whom(ask)
        host = await self._hosts.get(spec)
        script = Script.load("komodo.sh", "look_at_folders.sh")
        said = parse((await host.run(script, spec.state_dir, slug(ask.fleet), timeout=LOOK)).text)
        changes = [await _change(host, ask, change, of) for change, of in _by_change(said).items()]
        lock = next(iter(said.get("lock", [])), "")
        return HostFolders(name=name, changes=tuple(changes), running=await _running(host, ask), lock=lock)

    @activity.defn
    async def clean_host(self, ask: CleanHost) -> Cleaned:
        """Keepers, their images and the folders go; what is there in force stays. Raises HostError, HostLocked.

        Removing is the one change that runs attached: done half, it is done again, and a job's own state would lie in
        the folder that goes.
        """
        _, spec = _whom(ask)
        host, unwanted = await self._hosts.get(spec), ask.unwanted
        removed: list[str] = []
        # Nothing of it, where somebody else is at work on the host.
        await host.discard(slug(ask.fleet), change=ask.change)
        if unwanted.keepers:
            done = await host.run(Script.load("komodo.sh", "remove_keepers.sh"), *unwanted.keepers, timeout=LOOK)
            removed += parse(done.text).get("removed", [])
        removed += await host.discard(slug(ask.fleet), *unwanted.changes, change=ask.change)
        return Cleaned(name=unwanted.name, removed=tuple(removed))


def _whom(ask: LookAtFolders | CleanHost) -> tuple[str, HostSpec]:
    if ask.server is not None:
        return ask.server.name, ask.server.host
    if ask.core is None:
        raise ValueError("neither Core nor a server is named")
    return CORE, ask.core.host


def _by_change(said: Said) -> dict[str, dict[str, list[str]]]:
    """The script's lines, by folder and key."""
    found: dict[str, dict[str, list[str]]] = {}
    for line in said.get("at", ()):
        change, key, value = line.split("\t", 2)
        found.setdefault(change, {}).setdefault(key, []).append(value)
    return found


async def _running(host: Host, ask: LookAtFolders) -> str:
    """What the agent's own journal says; a version that nobody saved is told before a way back cuts it off."""
    if ask.server is None or ask.brief:
        return ""
    return (await agent_state(host, ask.server.unit)).log.version


async def _change(host: Host, ask: LookAtFolders, change: str, said: Said) -> SavedChange:
    name, spec = _whom(ask)
    folder = f"{spec.state_dir}/{slug(ask.fleet)}/{change}"
    size = sum(int(one) for one in said.get("bytes", ()))
    base = SavedChange(change=change, folder=folder, name=name, bytes=size, keepers=tuple(said.get("keeper", ())))
    path = f"{folder}/manifest.json"
    file = await host.read(path) if said.get("manifest") else None
    if file is None:
        return replace(base, state="nothing was saved, so nothing was switched")
    try:
        found = manifests.read(file.data, path, host.spec.name)
        if ask.server is None:
            return await _core_change(host, ask, base, said, found)
        return _server_change(base, said, found, path, host.spec.name)
    except Unreachable:
        raise
    except UpgradeError as error:
        # Told apart by nobody: as long as it is not known, it counts as in place.
        return replace(base, in_place=True, state="cannot be read", problem=_words(error))


def _server_change(base: SavedChange, said: Said, found: dict[str, object], path: str, host: str) -> SavedChange:
    restored = _latest(said, "restored-at")
    switched = _latest(said, "switched")
    in_place = switched is not None and restored is None
    state = "nothing was switched"
    if restored is not None:
        state = f"put back at {_time(restored)}"
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
        problem=_broken(said) if in_place else "",
        attempt=_attempt(said),
        backup=manifests.server_backup(found),
        server=manifests.server_facts(found, path, host),
    )


async def _core_change(
    host: Host, ask: LookAtFolders, base: SavedChange, said: Said, found: dict[str, object]
) -> SavedChange:
    facts = manifests.core_facts(found, f"{base.folder}/manifest.json", host.spec.name)
    started, back = _latest(said, "core-v2-started"), _latest(said, "rolled-back-at")
    half = _half_done(facts, said)
    in_place = back is None and (started is not None or bool(half))
    dump = None
    problem = _broken(said) if in_place else ""
    if started is not None and not ask.brief:
        path = f"{base.folder}/{manifests.DUMP_RECORD}"
        record = await host.read(path)
        if record is None:
            problem = problem or f"{path} is gone: what the final dump holds is not known"
        else:
            dump = manifests.dump(record.data, path, host.spec.name)
            dump = replace(dump, proof=dump.proof or read_proof(await host.read(f"{dump.path}{PROOF}")))
    state = "nothing was switched"
    if back is not None:
        state = f"put back at {_time(back)}"
    elif started is not None:
        state = f"in place since {_time(started)}"
    elif half:
        state = f"half done: {half}"
    elif said.get("agent-switched"):
        state = "of Core only the agent beside it was switched; Core's own upgrade has another folder"
    return replace(
        base,
        version=str(found.get("from", "")),
        target=str(found.get("to", "")),
        taken_at=_taken(found),
        in_place=in_place,
        state=state,
        problem=problem if in_place else "",
        attempt=_attempt(said),
        backup=manifests.core_backup(found, host.spec.name),
        core=facts,
        dump=dump,
        agent_switched=bool(said.get("agent-switched")),
    )


def _half_done(facts: CoreFacts, said: Said) -> str:
    """What was begun before the new Core was ever started, and not undone: its workflow was terminated just then."""
    planned = {(e.path, e.result_sha256) for e in facts.edits}
    for line in said.get("differs", ()):
        path, now = line.split("\t")
        if (path, now) in planned:
            return f"{path} is the new version's, which was never started"
    stopped = bool(said.get("core-stopped-at")) and not said.get("running")
    return "Core was stopped for the upgrade and not started again" if stopped else ""


def _broken(said: Said) -> str:
    broken = said.get("broken", ())
    return f"not what was saved: {', '.join(broken)}" if broken else ""


def _latest(said: Said, key: str) -> int | None:
    return max((int(one) for one in said.get(key, ())), default=None)


def _attempt(said: Said) -> int:
    return max((int(one) for one in said.get("attempt", ())), default=1)


def _taken(found: dict[str, object]) -> datetime:
    return datetime.fromisoformat(str(found["taken_at"]))


def _time(seconds: int) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S} UTC"


def _words(error: UpgradeError) -> str:
    return error.what + (f"; {error.cure}" if error.cure else "")
