"""The backup of a server, from which a person can restore it with neither this tool nor a network."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import PurePosixPath
from typing import Any

from activities.fleet import manifest
from activities.heartbeat import attach
from activities.server.survey import FileFacts, file_facts
from hosts.exec.script import Script, parse, standalone
from hosts.host import Host
from komodo.releases import guide_suffix
from model.errors import CommandFailed, HostError, PlanChanged
from model.facts import Backup
from model.fleet.spec import HostSpec, Sudo
from model.steps import SavedServerStep, ServerStep

LIMIT = timedelta(minutes=10)
RESTORE_WAIT = 60
"""Seconds that restore.sh waits for the old version to appear in the journal."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """What differs between the kinds of agents."""

    wanted: tuple[tuple[str, str], ...]
    """Kind and path of each file that is saved."""
    guide_copies: tuple[str, ...]
    """Files that also get a copy next to them, with the guide's name: those that the upgrade edits."""
    listed: tuple[tuple[str, str], ...]
    """Keys and values of restore.list for the script that restores."""
    script: str
    """Becomes restore.sh."""
    by_hand: str
    """For the README: how to restore without restore.sh."""


def systemd_layout(step: ServerStep) -> Layout:
    """Binary, unit, drop-ins and configs."""
    facts = step.facts
    systemctl = "systemctl --user" if facts.user_unit else "systemctl"
    wanted = [("binary", facts.binary), ("unit", facts.unit_path)]
    wanted += [("drop-in", path) for path in facts.drop_ins]
    wanted += [("config", path) for path in facts.config_paths]
    return Layout(
        wanted=tuple((kind, path) for kind, path in wanted if path),
        guide_copies=facts.config_paths,
        listed=(("unit", facts.unit), ("scope", "user" if facts.user_unit else "")),
        script="server/restore_server.sh",
        by_hand=f"{systemctl} stop {facts.unit}, copy each file back to its place with the mode and owner\n"
        f"above, {systemctl} daemon-reload, {systemctl} start {facts.unit}. The config has to be in place by then.",
    )


@dataclass(frozen=True, slots=True)
class _Kept:
    """One file to save in the folder."""

    kind: str
    """binary | unit | drop-in | config | compose | env"""
    facts: FileFacts
    name: str
    guide: str
    """Suffix of the copy next to the file, or "-"."""


async def missing_for_rollback(host: Host, step: SavedServerStep) -> tuple[str, ...]:
    """Which of the saved files are missing or different, as text. Raises HostError."""
    folder = step.backup.folder
    pairs = [f"{folder}/restore.sh", "", f"{folder}/restore.list", ""]
    for saved in step.backup.files:
        pairs += [saved.saved_as, saved.sha256]
    output = parse((await host.run(Script.load("komodo.sh", "fleet/check_digests.sh", *pairs))).text)
    gone = tuple(f"{path} is gone" for path in output.get("missing", []))
    return gone + tuple(f"{path} is not what was saved" for path in output.get("differs", []))


async def back_up(host: Host, step: ServerStep, layout: Layout) -> Backup:
    """Save the agent's files in the run folder, with restore.sh; those that are edited also under the guide's names.

    A second call, also by a later attempt, finds the finished folder and returns the same. Raises PlanChanged where a
    file is not the planned one, HostError.
    """
    folder = step.op.folder(host.spec.state_dir)
    seen = await _survey_files(host, step, layout, folder)
    if f"{folder}/manifest.json" in seen and (found := await read_backup(host, folder)) is not None:
        return found
    kept, notes = _what_to_keep(host, step, layout, seen)
    text = _manifest(step, host.spec, folder, kept, notes)
    done = await attach(
        host,
        step.op.id("back-up"),
        folder,
        Script.load("komodo.sh", "server/back_up_server.sh", folder=folder, stamp=step.op.change),
        data=_records(step, layout, kept, text, _readme(step, host.spec, folder, kept, layout)),
        change=step.op.change,
        timeout=LIMIT,
    )
    saved = parse(done.text).get("saved", [])
    if len(saved) != len(kept):
        raise CommandFailed(
            f"only {len(saved)} of {len(kept)} files were saved",
            host=host.spec.name,
            residue=f"{folder}, incomplete",
        )
    return manifest.server_backup(json.loads(text))


def restore_command(spec: HostSpec, folder: str) -> str:
    """The command that a person types on that host."""
    sudo = "" if spec.sudo is Sudo.NONE else "sudo "
    return f"{sudo}sh {shlex.quote(folder)}/restore.sh"


async def read_backup(host: Host, folder: str) -> Backup | None:
    """The finished backup in a run folder, its copies compared with their digests; None: there is none.

    Raises HostError where a copy is damaged.
    """
    saved = await host.read(f"{folder}/manifest.json")
    if saved is None:
        return None
    found = manifest.read(saved.data, saved.path, host.spec.name)
    output = parse((await host.run(Script.load("komodo.sh", "server/check_saved.sh", folder=folder))).text)
    if broken := output.get("broken"):
        raise HostError(
            f"the backup is damaged: {', '.join(broken)}",
            host=host.spec.name,
            residue="the agent, untouched by this step",
            hint=f"compare {folder}/files with the copies next to the config (….bak_v1)",
        )
    return manifest.server_backup(found)


async def _survey_files(host: Host, step: ServerStep, layout: Layout, folder: str) -> dict[str, FileFacts]:
    """Everything that a backup depends on, in one round trip: the files, copies under the guide's names, the mark."""
    suffix = guide_suffix(step.facts.version)
    guides = [f"{path}.{suffix}" for path in layout.guide_copies]
    return await file_facts(host, f"{folder}/manifest.json", *(path for _, path in layout.wanted), *guides)


def _what_to_keep(
    host: Host, step: ServerStep, layout: Layout, seen: Mapping[str, FileFacts]
) -> tuple[list[_Kept], list[str]]:
    facts, suffix = step.facts, guide_suffix(step.facts.version)
    # A file may be edited twice: the pin comes on top of the other edits.
    planned = {edit.path: edit.base_sha256 for edit in reversed(facts.edits)} | {facts.binary: facts.binary_sha256}
    kept: list[_Kept] = []
    notes = []
    names: set[str] = set()
    for kind, path in layout.wanted:
        if path not in seen or (planned.get(path) or seen[path].sha256) != seen[path].sha256:
            raise PlanChanged(
                f"{path} {'is gone' if path not in seen else 'was changed'} since the plan was made",
                host=host.spec.name,
                residue="nothing was changed",
                hint="plan and approve again",
            )
        if any(c in path for c in "\t\n"):
            raise HostError(f"the path {path!r} holds a tab or a line break", host=host.spec.name, hint="rename it")
        base = PurePosixPath(path).name if kind != "drop-in" else f"drop-in-{PurePosixPath(path).name}"
        name = next(n for n in (base, *(f"{base}.{i}" for i in range(2, 99))) if n not in names)
        names.add(name)
        guide = "-"
        if path in layout.guide_copies:
            guide = suffix
            older = seen.get(f"{path}.{suffix}")
            if older is not None and older.sha256 != seen[path].sha256:
                notes.append(f"an older {older.path} was kept; the copy of this run is {older.path}.{step.op.change}")
        kept.append(_Kept(kind, seen[path], name, guide))
    return kept, notes


def _manifest(step: ServerStep, spec: HostSpec, folder: str, kept: list[_Kept], notes: list[str]) -> str:
    files = []
    for one in kept:
        copy = f"{one.facts.path}.{one.guide}" if one.guide != "-" else ""
        note = next((n for n in notes if copy and n.startswith(f"an older {copy} ")), "")
        files.append(
            {
                "kind": one.kind,
                "path": one.facts.path,
                "saved_as": f"{folder}/files/{one.name}",
                "sha256": one.facts.sha256,
                "mode": one.facts.mode,
                "owner": one.facts.owner,
                "guide_name": f"{copy}.{step.op.change}" if note else copy,
                "note": note,
            }
        )
    content: dict[str, Any] = {
        "format": manifest.FORMAT,
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
        "facts": manifest.facts_of(step.facts),
    }
    return json.dumps(content, indent=2, ensure_ascii=False)


def _records(step: ServerStep, layout: Layout, kept: list[_Kept], manifest_text: str, readme: str) -> bytes:
    """Standard input of back_up_server.sh. The manifest comes last: it marks the backup as complete."""
    lines = [f"save\t{k.facts.sha256}\t{k.name}\t{k.guide}\t{k.facts.path}" for k in kept]
    listed = [f"format\t{manifest.FORMAT}", *(f"{key}\t{value}" for key, value in layout.listed if value)]
    listed += [f"version\t{step.facts.version or '-'}", f"wait\t{RESTORE_WAIT}"]
    listed += ["\t".join(["file", k.kind, *_placing(k), k.name, k.facts.path]) for k in kept]
    texts = (
        ("0600", "restore.list", "\n".join(listed)),
        ("0700", "restore.sh", standalone("komodo.sh", layout.script).rstrip("\n")),
        ("0700", "dead-man.sh", standalone("komodo.sh", "server/auto_rollback.sh").rstrip("\n")),
        ("0600", "README.txt", readme.rstrip("\n")),
        ("0600", "manifest.json", manifest_text),
    )
    records = "".join(f"{line}\n" for line in lines).encode()
    for mode, name, content in texts:
        data = f"{content}\n".encode()
        records += f"text\t{mode}\t{len(data)}\t{name}\n".encode() + data
    return records


def _placing(kept: _Kept) -> tuple[str, str, str]:
    facts = asdict(kept.facts)
    return facts["sha256"], facts["mode"], facts["owner"]


def _readme(step: ServerStep, spec: HostSpec, folder: str, kept: list[_Kept], layout: Layout) -> str:
    files = "\n".join(f"  files/{k.name:<28} {k.facts.path} ({k.facts.mode}, {k.facts.owner})" for k in kept)
    return f"""\
Komodo's agent on this machine, as it was before the upgrade to {step.target}
Server {step.server.name} of the fleet {step.op.fleet}; upgrade {step.op.change}; agent version {step.facts.version}.

To restore it (needs no tool and no network, may be run again at any time):

  {restore_command(spec, folder)} --dry-run     shows what would be done
  {restore_command(spec, folder)}               does it, and proves it by the agent's journal

A v1 agent cannot talk to a v2 Core: after this the server is unreachable in Komodo until Core is v1 again, or the
agent is upgraded again.

What lies here:

{files}
  restore.list     what restore.sh puts where: kind, sha256, mode, owner, name, path
  manifest.json    the same for programs
  jobs/            exit codes and output of what the upgrade ran here
  staged/          the new version, until the upgrade is over
  dead-man.sh      the automatic rollback timer, where the fleet file sets one (`auto_rollback`);
                   sh dead-man.sh state shows its state, sh dead-man.sh disarm ends it

By hand, without restore.sh: {layout.by_hand}
"""
