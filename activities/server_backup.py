"""What a server is before the upgrade, kept so that a person can put it back with neither this tool nor a network."""

from __future__ import annotations

import asyncio
import json
import shlex
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import PurePosixPath
from typing import Any

from temporalio import activity

from activities import manifests
from activities.agent_host import FileFacts, file_facts
from activities.signs import attach
from hosts.host import Host
from hosts.pool import Hosts
from hosts.script import Script, packaged, parse
from komodo.releases import guide_suffix
from model.errors import CommandFailed, HostError, PlanChanged, Unreachable
from model.facts import Backup
from model.fleet import HostSpec, Sudo
from model.steps import Recheck, ServerStep

LIMIT = timedelta(minutes=10)
RESTORE_WAIT = 60
"""Seconds in which restore.sh wants to see the old version in the journal."""


@dataclass(frozen=True, slots=True)
class _Kept:
    """One file that goes into the folder."""

    kind: str
    """binary | unit | drop-in | config"""
    facts: FileFacts
    name: str
    guide: str
    """Suffix of the copy beside the file, or "-"."""


class ServerBackup:
    """Back up one server's agent."""

    def __init__(self, hosts: Hosts) -> None:
        self._hosts = hosts

    @activity.defn
    async def check_server_rollback(self, step: ServerStep) -> Recheck:
        """What of the saved binary, unit and files is gone or different. An unreachable host is told apart."""
        try:
            said = await self._missing(step)
        except Unreachable:
            # A line that is cut in the middle of a look is not yet a host that is away.
            await asyncio.sleep(step.clocks.poll.total_seconds())
            try:
                said = await self._missing(step)
            except Unreachable as error:
                return Recheck(unreachable=error.what)
        drift = [f"{path} is gone" for path in said.get("missing", [])]
        drift += [f"{path} is not what was saved" for path in said.get("differs", [])]
        return Recheck(drift=tuple(drift))

    async def _missing(self, step: ServerStep) -> dict[str, list[str]]:
        host = await self._hosts.get(step.server.host)
        folder = step.backup.folder if step.backup else step.op.folder(host.spec.state_dir)
        pairs = [f"{folder}/restore.sh", "", f"{folder}/restore.list", ""]
        for saved in step.backup.files if step.backup else ():
            pairs += [saved.saved_as, saved.sha256]
        return parse((await host.run(Script.load("komodo.sh", "check_rollback.sh"), *pairs)).text)

    @activity.defn
    async def back_up_server(self, step: ServerStep) -> Backup:
        """Binary, unit, drop-ins and configs into the run folder, with restore.sh; configs also by the guide's names.

        A second call, also by a later attempt, finds the finished folder and returns the same. Raises PlanChanged where
        a file is not what was planned, HostError.
        """
        host = await self._hosts.get(step.server.host)
        folder = step.op.folder(host.spec.state_dir)
        seen = await _look(host, step, folder)
        if f"{folder}/manifest.json" in seen and (found := await read_backup(host, folder)) is not None:
            return found
        kept, notes = _what_to_keep(host, step, seen)
        text = _manifest(step, host.spec, folder, kept, notes)
        done = await attach(
            host,
            step.op.id("back-up"),
            folder,
            Script.load("komodo.sh", "back_up_server.sh"),
            folder,
            step.op.change,
            data=_records(step, kept, text, _readme(step, host.spec, folder, kept)),
            change=step.op.change,
            timeout=LIMIT,
        )
        saved = parse(done.text).get("saved", [])
        if len(saved) != len(kept):
            raise CommandFailed(
                f"only {len(saved)} of {len(kept)} files were saved", host=host.spec.name, left=f"{folder}, incomplete"
            )
        return manifests.server_backup(json.loads(text))


def restore_command(spec: HostSpec, folder: str) -> str:
    """The line that a person types on that host."""
    sudo = "" if spec.sudo is Sudo.NONE else "sudo "
    return f"{sudo}sh {shlex.quote(folder)}/restore.sh"


async def read_backup(host: Host, folder: str) -> Backup | None:
    """The finished backup in a run folder, its copies compared with their digests; None: there is none.

    Raises HostError where a copy is damaged.
    """
    manifest = await host.read(f"{folder}/manifest.json")
    if manifest is None:
        return None
    found = manifests.read(manifest.data, manifest.path, host.spec.name)
    said = parse((await host.run(Script.load("komodo.sh", "check_saved.sh"), folder)).text)
    if broken := said.get("broken"):
        raise HostError(
            f"the backup is damaged: {', '.join(broken)}",
            host=host.spec.name,
            left="the agent, untouched by this step",
            cure=f"compare {folder}/files with the copies beside the config (….bak_v1)",
        )
    return manifests.server_backup(found)


def _wanted(step: ServerStep) -> list[tuple[str, str]]:
    """Kind and path of what is saved."""
    facts = step.facts
    wanted = [("binary", facts.binary), ("unit", facts.unit_path)]
    wanted += [("drop-in", path) for path in facts.drop_ins]
    wanted += [("config", path) for path in facts.config_paths]
    return [(kind, path) for kind, path in wanted if path]


async def _look(host: Host, step: ServerStep, folder: str) -> dict[str, FileFacts]:
    """Everything that a backup depends on, in one round trip: the files, copies by the guide's names, the mark."""
    wanted, suffix = _wanted(step), guide_suffix(step.facts.version)
    guides = [f"{path}.{suffix}" for kind, path in wanted if kind == "config"]
    return await file_facts(host, f"{folder}/manifest.json", *(path for _, path in wanted), *guides)


def _what_to_keep(host: Host, step: ServerStep, seen: Mapping[str, FileFacts]) -> tuple[list[_Kept], list[str]]:
    facts, wanted, suffix = step.facts, _wanted(step), guide_suffix(step.facts.version)
    planned = {facts.binary: facts.binary_sha256} | {edit.path: edit.base_sha256 for edit in facts.edits}
    kept: list[_Kept] = []
    notes = []
    names: set[str] = set()
    for kind, path in wanted:
        if path not in seen or (planned.get(path) or seen[path].sha256) != seen[path].sha256:
            raise PlanChanged(
                f"{path} {'is gone' if path not in seen else 'was changed'} since the plan was made",
                host=host.spec.name,
                left="nothing was changed",
                cure="plan and approve again",
            )
        if any(c in path for c in "\t\n"):
            raise HostError(f"the path {path!r} holds a tab or a line break", host=host.spec.name, cure="rename it")
        base = PurePosixPath(path).name if kind != "drop-in" else f"drop-in-{PurePosixPath(path).name}"
        name = next(n for n in (base, *(f"{base}.{i}" for i in range(2, 99))) if n not in names)
        names.add(name)
        guide = "-"
        if kind == "config":
            guide = suffix
            older = seen.get(f"{path}.{suffix}")
            if older is not None and older.sha256 != seen[path].sha256:
                notes.append(f"an older {older.path} was kept; tonight's is {older.path}.{step.op.change}")
        kept.append(_Kept(kind, seen[path], name, guide))
    return kept, notes


def _manifest(step: ServerStep, spec: HostSpec, folder: str, kept: list[_Kept], notes: list[str]) -> str:
    files = []
    for one in kept:
        beside = f"{one.facts.path}.{one.guide}" if one.guide != "-" else ""
        note = next((n for n in notes if beside and n.startswith(f"an older {beside} ")), "")
        files.append(
            {
                "kind": one.kind,
                "path": one.facts.path,
                "saved_as": f"{folder}/files/{one.name}",
                "sha256": one.facts.sha256,
                "mode": one.facts.mode,
                "owner": one.facts.owner,
                "guide_name": f"{beside}.{step.op.change}" if note else beside,
                "note": note,
            }
        )
    manifest: dict[str, Any] = {
        "format": manifests.FORMAT,
        "made_by": "komodo-upgrade",
        "fleet": step.op.fleet,
        "change": step.op.change,
        "server": step.server.name,
        "host": spec.name,
        "unit": step.facts.unit,
        "version": step.facts.version,
        "target": step.target,
        "folder": folder,
        "taken_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "restore_command": restore_command(spec, folder),
        "notes": notes,
        "files": files,
        "facts": manifests.facts_of(step.facts),
    }
    return json.dumps(manifest, indent=2, ensure_ascii=False)


def _records(step: ServerStep, kept: list[_Kept], manifest: str, readme: str) -> bytes:
    """Standard input of back_up_server.sh. The manifest comes last: it is the mark that all is there."""
    lines = [f"save\t{k.facts.sha256}\t{k.name}\t{k.guide}\t{k.facts.path}" for k in kept]
    listed = [f"format\t{manifests.FORMAT}", f"unit\t{step.facts.unit}", f"version\t{step.facts.version or '-'}"]
    listed.append(f"wait\t{RESTORE_WAIT}")
    listed += ["\t".join(["file", k.kind, *_placing(k), k.name, k.facts.path]) for k in kept]
    texts = (
        ("0600", "restore.list", "\n".join(listed)),
        ("0700", "restore.sh", packaged("komodo.sh", "restore_server.sh").rstrip("\n")),
        ("0700", "dead-man.sh", packaged("komodo.sh", "dead_man.sh").rstrip("\n")),
        ("0600", "README.txt", readme.rstrip("\n")),
        ("0600", "manifest.json", manifest),
    )
    records = "".join(f"{line}\n" for line in lines).encode()
    for mode, name, content in texts:
        data = f"{content}\n".encode()
        records += f"text\t{mode}\t{len(data)}\t{name}\n".encode() + data
    return records


def _placing(kept: _Kept) -> tuple[str, str, str]:
    facts = asdict(kept.facts)
    return facts["sha256"], facts["mode"], facts["owner"]


def _readme(step: ServerStep, spec: HostSpec, folder: str, kept: list[_Kept]) -> str:
    files = "\n".join(f"  files/{k.name:<28} {k.facts.path} ({k.facts.mode}, {k.facts.owner})" for k in kept)
    return f"""\
Komodo's agent on this machine, as it was before the upgrade to {step.target}
Server {step.server.name} of the fleet {step.op.fleet}; upgrade {step.op.change}; agent version {step.facts.version}.

To put it back (needs no tool and no network, may be run again at any time):

  {restore_command(spec, folder)} --dry-run     shows what would be done
  {restore_command(spec, folder)}               does it, and proves it by the agent's journal

A v1 agent cannot talk to a v2 Core: after this the server is unreachable in Komodo until Core is v1 again, or the
agent is upgraded again.

What lies here:

{files}
  restore.list     what restore.sh puts where: kind, sha256, mode, owner, name, path
  manifest.json    the same for programs
  jobs/            exit codes and output of what the upgrade ran here
  staged/          the new binary, until the upgrade is over
  dead-man.sh      the timer that puts the agent back by itself, where the fleet file asks for one (`dead_man`);
                   sh dead-man.sh state says what it is, sh dead-man.sh disarm ends it

By hand, without restore.sh: systemctl stop {step.facts.unit}, copy each file back to its place with the mode and owner
above, systemctl daemon-reload, systemctl start {step.facts.unit}. Put the config back before the old binary starts.
"""
