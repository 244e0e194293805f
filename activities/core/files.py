"""The files of Core's project: read from its host, edited as planned, and compared again before each is written."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import PurePosixPath

from hosts.host import Host, RemoteFile
from komodo.core.containers import Container, compose_command
from komodo.files.edit_set import ProjectEdit, ProjectFiles, edit_project
from komodo.public_key import PLACEHOLDER
from model.errors import CommandFailed, DownloadFailed, EditRefused, HostError, PlanChanged, UpgradeError
from model.facts import ComposeProject, CoreFacts, CoreInstallation, PlannedEdit

NOT_PULLED, NOT_ACCEPTED = 77, 76
"""Exit codes of stage_core.sh."""
AGENT_KEYS = "PERIPHERY_CORE_PUBLIC_KEYS"


LARGEST_TEXT = 256 * 1024
"""Bytes of a compose, env or config file that is read: parsers written in Python take a second for so much."""


def decode(file: RemoteFile) -> str:
    """A file's text with unchanged line endings. Raises EditRefused where it is not UTF-8."""
    try:
        return file.data.decode()
    except UnicodeDecodeError:
        raise EditRefused(f"{file.path} is not UTF-8 text", hint="save it as UTF-8, then plan again") from None


async def read_texts(host: Host, paths: tuple[str, ...]) -> dict[str, str]:
    """Texts of files, all of which must exist."""
    found: dict[str, str] = {}
    for path in dict.fromkeys(paths):
        file = await host.read(path, limit=LARGEST_TEXT)
        if file is None:
            raise HostError(f"there is no file {path}", host=host.spec.name, hint="correct [core] in the fleet file")
        found[path] = decode(file)
    return found


def interpolation_file(project: ComposeProject) -> str:
    """The file that fills `${…}` in Compose files: --env-file, otherwise `.env` in the project's directory, which may
    not exist.
    """
    return project.env_file or str(PurePosixPath(project.directory) / ".env")


async def read_project(
    host: Host, project: ComposeProject, services: Iterable[str], compose: Mapping[str, str] | None = None
) -> ProjectFiles:
    """The project's files with the env files of these services. `compose`: the compose files, where they are read."""
    if compose is None:
        compose = await read_texts(host, project.files)
    fills = interpolation_file(project)
    files = ProjectFiles(directory=project.directory, compose=compose, fills=(fills,))
    envs: dict[str, str] = {}
    named = await asyncio.to_thread(lambda: [p for name in services for p in files.env_files(name)])
    for path in dict.fromkeys((fills, *named)):
        file = await host.read(path, limit=LARGEST_TEXT)
        if file is not None:
            envs[path] = decode(file)
    return replace(files, envs=envs)


def edit_core_project(files: ProjectFiles, *, target: str, keys_mount: str, pinned: bool = False) -> ProjectEdit:
    """The edits. `pinned`: the agent already has Core's present key.

    Raises EditRefused, with the snippet to paste, where a file cannot be edited safely.
    """
    edit = edit_project(
        files, target=target, keys_mount=keys_mount, key="" if pinned else PLACEHOLDER, copies_keys=True
    )
    edit.refuse_incomplete()
    return edit


def planned_files(facts: CoreFacts) -> tuple[PlannedEdit, ...]:
    """Edits that must be in place before Core starts."""
    return tuple(e for e in facts.edits if not e.with_key)


def planned_pin(facts: CoreFacts) -> PlannedEdit | None:
    """The edit that gives Core's key to the agent in Core's project."""
    return next((e for e in facts.edits if e.with_key), None)


def staged_name(path: str) -> str:
    """Name of a file's new version in the run folder's `staged`."""
    return f"{hashlib.sha256(path.encode()).hexdigest()[:8]}-{PurePosixPath(path).name}"


def staged_words(folder: str, project: ComposeProject, edited: Iterable[str]) -> tuple[str, ...]:
    """The compose command with the files that are staged in the run folder in place of the edited ones."""
    staged = {path: f"{folder}/staged/{staged_name(path)}" for path in edited}
    env_file = interpolation_file(project)
    return compose_command(
        project, files=[staged.get(p, p) for p in project.files], env_file=staged.get(env_file, project.env_file)
    )


def not_staged(error: CommandFailed, targets: tuple[str, ...]) -> UpgradeError:
    """The failure of stage_core.sh as what it means."""
    if error.code == NOT_PULLED:
        return DownloadFailed(
            f"an image could not be pulled ({', '.join(targets)}): {error.tail or error.what}",
            host=error.host,
            residue="the old version runs, nothing was changed",
            hint="`docker pull` the same on that host: registry down, rate limit, proxy, or no such version?",
        )
    if error.code == NOT_ACCEPTED:
        return EditRefused(
            f"compose does not accept the edited files: {error.tail or error.what}",
            host=error.host,
            residue="the old version runs, nothing was changed",
            hint="please report this with the file (without secrets); meanwhile edit by hand and plan again",
        )
    return error


async def read_and_edit(host: Host, facts: CoreInstallation, target: str, keys_mount: str) -> ProjectEdit:
    """The edits, computed from the present files."""
    files = await read_project(host, facts.project, service_names(facts))
    pinned = planned_pin(facts) is None
    return await asyncio.to_thread(edit_core_project, files, target=target, keys_mount=keys_mount, pinned=pinned)


def service_names(facts: CoreFacts) -> tuple[str, ...]:
    """Core's service, and that of the agent in its project."""
    return tuple(s.service for s in (facts.core, facts.agent) if s and s.service)


def require_planned(host: str, edits: ProjectEdit, facts: CoreFacts) -> None:
    """Raises PlanChanged unless the files and the edits are those of the approved plan."""
    planned = {(e.path, e.base_sha256, e.result_sha256) for e in facts.edits}
    now = {(e.path, e.base_sha256, e.result_sha256) for e in edits.planned()}
    if now != planned:
        names = ", ".join(sorted({p for p, _, _ in now ^ planned}))
        raise PlanChanged(
            f"{names}: no longer what was planned and approved",
            host=host,
            residue="nothing was changed by this step",
            hint="check what was changed there, then plan and approve again: komodo-upgrade start",
        )


def pinned_key(agent: Container | None) -> str:
    """The Core key that is pinned in the running agent's environment; "" if none."""
    if agent is None:
        return ""
    return agent.setting(AGENT_KEYS) or agent.setting("PERIPHERY_CORE_PUBLIC_KEY")
