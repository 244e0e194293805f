"""What must hold after every run, whatever died in it, compared with the same run undisturbed."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import re
import stat
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from temporalio.client import Client, WorkflowExecution, WorkflowExecutionStatus, WorkflowHistory
from temporalio.service import RPCError

from model.status import FleetResult
from sandbox.fleet import Sandbox
from sandbox.world import Recorded
from tests.sweep.cell_run import CellRun

INSTALLED = ("etc/komodo", "etc/systemd", "usr/local/bin", "opt", "srv/stack")
CHATTER = frozenset({"Stats", "Alert"})
"""Collections that Core itself writes all the time."""


@dataclass
class Before:
    """What a fleet was, before anything began."""

    files: dict[str, str]
    documents: dict[str, list[str]]


@dataclass
class After:
    """What an undisturbed run and a disturbed one must have in common."""

    state: str = ""
    servers: list[str] = field(default_factory=list)
    commands: dict[str, dict[str, int]] = field(default_factory=dict)
    tree: dict[str, dict[str, int]] = field(default_factory=dict)
    containers: dict[str, int] = field(default_factory=dict)
    databases: list[str] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    changed: list[str] = field(default_factory=list)
    """Collections whose documents are not what they were before the run."""
    versions: dict[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    """How it ended in words, without times and numbers."""


def installed(sandbox: Sandbox) -> dict[str, str]:
    """Digest of every file that Komodo's installation consists of; except the files that the upgrade adds."""
    found = {}
    for host in sandbox.hosts.values():
        for folder in INSTALLED:
            for path in sorted((host.root / folder).rglob("*")):
                ours = ".bak_v1" in path.name or "/keys" in str(path.relative_to(host.root))
                if path.is_file() and not ours:
                    found[str(path)] = _digest(path)
    return found


def documents(sandbox: Sandbox) -> dict[str, list[str]]:
    """Everything in the database, by collection."""
    names = [n for n in sorted(sandbox.store.databases["komodo"]) if n not in CHATTER]
    return {n: sorted(map(repr, sandbox.store.find("komodo", n))) for n in names}


def before(run: CellRun) -> Before:
    """To be taken before the upgrade is started."""
    return Before(installed(run.sandbox), documents(run.sandbox))


def after(run: CellRun, result: FleetResult, was: Before) -> After:
    """What the run ended with. What differs from run to run by nature is normalized."""
    sandbox = run.sandbox
    now = documents(sandbox)
    core = sandbox.core
    return After(
        state=str(result.state),
        servers=[str(one.state) for one in result.servers],
        commands={name: dict(sorted(_commands(sandbox, name).items())) for name in sandbox.hosts},
        tree={name: dict(sorted(Counter(_tree(host.root)).items())) for name, host in sandbox.hosts.items()},
        containers=dict(Counter(_containers(sandbox))),
        databases=sorted(sandbox.store.databases),
        counts={name: len(found) for name, found in now.items()},
        changed=sorted(n for n in {*now, *was.documents} if now.get(n) != was.documents.get(n)),
        said=[_in_general(one) for one in (result.detail, result.core_detail)],
        # What is due within twelve hours is another thing from one hour to the next.
        warnings=sorted(f"{one.code} {one.subject}" for one in result.warnings if one.code != "schedules-due"),
        versions={"core": core.version if core else ""}
        | {name: sandbox.agent_version(name) for name in sandbox.hosts if name != "core"},
    )


def _containers(sandbox: Sandbox) -> Iterator[str]:
    for host, engine in sandbox.engines.items():
        yield from (f"{host}: {_plain(c.name)} {c.image.repository}" for c in engine.containers.values())


def _in_general(text: str) -> str:
    """Without numbers, and without the way in which a Core that does not work failed to answer this time."""
    return re.sub(r"\d+", "N", re.sub(r"(through the SSH connection): [^\n]*", r"\1", _plain(text)))


def differences(wanted: After, got: After) -> Iterator[str]:
    """The differences to the undisturbed run, as text."""
    for name, value in vars(wanted).items():
        have = getattr(got, name)
        if name in {"commands", "tree"}:
            for host in value:
                yield from (f"{host}: {line}" for line in _counted(name, value[host], have[host]))
        elif isinstance(value, dict):
            yield from _counted(name, value, have)
        elif value != have:
            yield f"{name}: {have}, undisturbed {value}"


def _counted(what: str, wanted: dict[str, Any], got: dict[str, Any]) -> Iterator[str]:
    for key in sorted({*wanted, *got}):
        if wanted.get(key) != got.get(key):
            yield f"{what}: {key!r}: {got.get(key, 'none')}, undisturbed {wanted.get(key, 'none')}"


async def broken(run: CellRun, was: Before, *, back: bool) -> list[str]:
    """What may never be, disturbed or not."""
    sandbox = run.sandbox
    found = [f"defect of the sandbox: {one}" for one in sandbox.world.defects]
    found += _left_behind(sandbox)
    found += _backups(sandbox, was)
    found += await _unfinished(run.client)
    found += [line async for line in _secrets(run)]
    if back:
        now = installed(sandbox)
        found += [f"not as before: {p}" for p in sorted({*now, *was.files}) if now.get(p) != was.files.get(p)]
    return found


# --- on the hosts -----------------------------------------------------------------------------------------------------


def _commands(sandbox: Sandbox, host: str) -> Counter[str]:
    return Counter(_plain(" ".join(one.argv)) for one in sandbox.mutations(host) if not _reads(one))


def _reads(one: Recorded) -> bool:
    """Counted as a change by the sandbox, though it only reads: a second read is harmless."""
    words = [w for w in one.argv if not w.startswith("-")]
    if words[:2] == ["docker", "run"] and "version" in words:
        return True  # the Docker client of the agent's image asks the engine for its version
    return words[:2] == ["docker", "exec"] and words[3:4] in (["ls"], ["core"], ["periphery"])


_NATURE = (
    (re.compile(r"^systemd-run .*--unit=komodo-upgrade-ku-.* (\S+)/run\.sh$"), r"job \1"),
    (re.compile(r"/\S*?/fleet/hosts/[^/\s]+"), ""),
    (re.compile(r"127\.\d+\.\d+\."), "NET."),
    (re.compile(r"(NET\.\d+|localhost|127\.0\.0\.1):\d+"), r"\1:PORT"),
    (re.compile(r"\b[0-9a-f]{8,64}\b"), "ID"),
    (re.compile(r"--unit=\S+"), "--unit=NONCE"),
    (re.compile(r"dead-man\.sh fire \S+"), "dead-man.sh fire NONCE"),
    (re.compile(r"komodo-upgrade-(?:ID|[0-9a-zA-Z_-]{16,})"), "komodo-upgrade-NONCE"),
)


def _plain(text: str) -> str:
    for pattern, word in _NATURE:
        text = pattern.sub(word, text)
    return text


def _tree(root: Path) -> Iterator[str]:
    """Every file and folder except the stand-ins, the journal, and the records of completed or invalidated jobs.

    An undo waits for the jobs that it undoes and removes their marks, in any number. Lost and failed jobs count.
    """
    for folder, folders, names in os.walk(root):
        inside = os.path.relpath(folder, root)
        if re.search(r"/jobs/[^/]+/[^/]+$", inside):
            folders[:] = [f for f in folders if re.search(r"\.(lost|failed)\.\d+$", f)]
        folders[:] = [f for f in folders if os.path.join(inside, f) not in {"./bin", "var/log"}]  # noqa: PTH118
        yield from (_plain(os.path.normpath(os.path.join(inside, name))) for name in (*folders, *names))  # noqa: PTH118


def _left_behind(sandbox: Sandbox) -> Iterator[str]:
    for host in sandbox.hosts.values():
        state = host.root / "var/lib/komodo-upgrade"
        yield from (f"{host.name}: a lock is left over: {path.name}" for path in state.glob("lock*"))
        for path in host.root.rglob("*"):
            if re.search(r"\.komodo-upgrade\.\d+$|\.new$|\.tmp$|\.part$", path.name):
                yield f"{host.name}: a temporary file is left over: {path.relative_to(host.root)}"
            elif stat.S_ISFIFO(path.lstat().st_mode) and (path.name != "living" or "jobs" not in path.parts):
                # (`living` is part of an ended job's record.)
                yield f"{host.name}: a pipe is left over: {path.relative_to(host.root)}"
        yield from (f"{host.name}: a job still runs: {job}" for job in _jobs_alive(host.root))


def _jobs_alive(root: Path) -> Iterator[str]:
    for line in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = line.read_bytes().split(b"\0")
        except OSError:
            continue
        for word in words:
            if word.startswith(bytes(root)) and word.endswith(b"/run.sh"):
                yield word.decode()


def _backups(sandbox: Sandbox, was: Before) -> Iterator[str]:
    """Every saved file equals the original, byte for byte."""
    for host in sandbox.hosts.values():
        manifests = list((host.root / "var/lib/komodo-upgrade").glob("*/*/manifest.json"))
        if not manifests:
            yield f"{host.name}: there is no backup"
        for manifest in manifests:
            for entry in json.loads(manifest.read_text())["files"]:
                saved = manifest.parent / (entry.get("saved") or entry["saved_as"])
                original = was.files.get(entry["path"])
                if original is None:
                    yield f"{host.name}: {entry['path']} is listed as saved, but did not exist"
                elif not saved.is_file() or _digest(saved) != original:
                    yield f"{host.name}: the backup of {entry['path']} differs from the original"
        for path in host.root.rglob("*.bak_v1*"):
            original = was.files.get(str(path).partition(".bak_v1")[0])
            if path.is_file() and original and _digest(path) != original:
                yield f"{host.name}: {path.relative_to(host.root)} differs from the original"


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


# --- in Temporal ------------------------------------------------------------------------------------------------------


async def _unfinished(client: Client) -> list[str]:
    return [
        f"{run.id} still runs" async for run in client.list_workflows() if run.status == WorkflowExecutionStatus.RUNNING
    ]


async def _history(client: Client, run: WorkflowExecution) -> WorkflowHistory:
    """Also where the server was killed a moment ago: what asks it must not take that for a failure of the run."""
    for pause in (0.5, 1.0, 2.0, 4.0):
        with contextlib.suppress(RPCError):
            return await client.get_workflow_handle(run.id, run_id=run.run_id).fetch_history()
        await asyncio.sleep(pause)
    return await client.get_workflow_handle(run.id, run_id=run.run_id).fetch_history()


async def scheduled(client: Client) -> int:
    """Activity calls in all histories: as many as the record must have."""
    count = 0
    async for run in client.list_workflows():
        history = await _history(client, run)
        count += sum(event.HasField("activity_task_scheduled_event_attributes") for event in history.events)
    return count


async def _secrets(run: CellRun) -> Any:
    secrets = [s for s in run.sandbox.secrets if len(s) > 3]
    wanted = {s: {s.encode(), json.dumps(s)[1:-1].encode()} for s in secrets}
    if not secrets:
        yield "the sandbox has no secrets to look for"
    seen = 0
    async for past in run.client.list_workflows():
        history = await _history(run.client, past)
        for event in history.events:
            # As it is sent: payloads, failures, memos and search attributes are plain bytes in it.
            data = event.SerializeToString()
            seen += b"json/plain" in data
            for forms in wanted.values():
                if any(form in data for form in forms):
                    yield f"a secret is in the history of {past.id}, event {event.event_id}"
    if not seen:
        yield "no payload was read"
    for place, text in (
        ("the worker's log", run.log.read_bytes()),
        ("the commands on the hosts", str([one.argv for one in run.sandbox.journal]).encode()),
        ("SSH command lines", str([host.shells for host in run.sandbox.hosts.values()]).encode()),
    ):
        if any(form in text for forms in wanted.values() for form in forms):
            yield f"a secret is in {place}"
