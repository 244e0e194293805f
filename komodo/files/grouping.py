"""Files that a user gives by hand: which of them belong together, and the edit of each."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import PurePath

from komodo.compose.agent_key import CORE_FILE
from komodo.compose.mounts import KEYS
from komodo.compose.reference import for_target, mentions
from komodo.files.detect import describe, is_sops, kind_of
from komodo.files.edit_set import FileEdit, ProjectEdit, ProjectFiles, edit_config, edit_env_file, edit_project
from komodo.files.env import TAG_VARIABLE, values
from komodo.files.periphery_toml import inspect
from komodo.public_key import PLACEHOLDER, command_to_write, understood
from model.errors import EditRefused


def edit_files(
    files: Sequence[tuple[str, str]], *, target: str, key: str = "", by_file: bool = False
) -> tuple[FileEdit, ...]:
    """Edit (path, text) pairs to the target, in the order given. `key` empty: nothing is pinned.

    `by_file`: agents are pinned by a reference to a file that holds the key, not by the key itself.

    A compose file goes with the env files of its own folder, else with all that are given. What is wrong with a file
    is in its result, never raised.
    """
    texts = dict(files)
    kinds = {path: kind_of(path, text) for path, text in files}
    envs = [path for path in texts if kinds[path] == "env"]
    composes = {path: texts[path] for path in texts if kinds[path] == "compose"}
    done: dict[str, FileEdit] = {}
    projects: dict[str, ProjectEdit] = {}
    for path in composes:
        project = _project(path, composes, {env: texts[env] for env in _paired(path, envs)})
        projects[path] = edited = edit_project(project, target=target, key=CORE_FILE if key and by_file else key)
        done[path] = _compose(path, texts[path], edited, key, target)
    for path in envs:
        readers = {compose: projects[compose] for compose in composes if path in _paired(compose, envs)}
        done[path] = _env(path, texts[path], readers, done, target)
    for path, text in texts.items():
        if path not in done:
            done[path] = _other(path, text, kinds[path], key, target, by_file=by_file)
    return tuple(_with_pin_note(done[path], key) for path in texts)


def _with_pin_note(edited: FileEdit, key: str) -> FileEdit:
    """What the pin that was written means."""
    notes = list(edited.notes)
    pins = [line for line in edited.after.splitlines() if key and key in line]
    if pins and edited.changed and key not in edited.before and not any("file:" in line for line in pins):
        notes.append(
            "Core's key is in the file itself: after a rotation of Core's keys in Komodo the agent refuses Core at its "
            "next start. With --pin file it reads the key from a file that the rotation replaces"
        )
    for entry in sorted(set(re.findall(r"file:[\w./-]+core\.pub", edited.after)) if edited.changed and key else ()):
        if entry not in edited.before:
            path = entry.removeprefix("file:")
            host = path if edited.kind == "periphery-config" else "FOLDER/core.pub, FOLDER being what is mounted there"
            notes.append(
                f"the agent does not start without {path}. Unless Core writes it there, run first: "
                f"{command_to_write(key, host)}"
            )
    return replace(edited, notes=tuple(notes))


def _paired(compose: str, envs: Sequence[str]) -> list[str]:
    in_folder = [path for path in envs if PurePath(path).parent == PurePath(compose).parent]
    return in_folder or list(envs)


def _project(path: str, composes: Mapping[str, str], envs: Mapping[str, str]) -> ProjectFiles:
    """The file, and those of its folder that only add to its services, in the order given; compose.override.yaml last.

    Two files that both have Komodo's images are two projects, or two variants of one.
    """
    folder = PurePath(path).parent
    order = sorted(composes.items(), key=lambda file: ".override." in PurePath(file[0]).name)
    joined = {
        other: text
        for other, text in order
        if other == path or (PurePath(other).parent == folder and not mentions(text))
    }
    return ProjectFiles(
        directory=str(folder),
        compose=joined,
        extendable={posixpath.relpath(other, folder): text for other, text in composes.items() if other != path},
        envs=envs,
        fills=tuple(envs),
        any_env_file=True,
    )


def _compose(path: str, text: str, project: ProjectEdit, key: str, target: str) -> FileEdit:
    edited = next((file for file in project.files if file.path == path), None)
    if edited is None:
        nothing, same = project.nothing[path], FileEdit(path=path, kind="compose", before=text, after=text)
        refused = nothing if nothing.commented else by_hand(path, text, target)
        return replace(same, refused=refused) if refused else replace(same, notes=(f"{nothing.what}: nothing to do",))
    edited = _with_pin(edited, [project])
    edited = replace(edited, notes=(*edited.notes, *_not_edited(edited.after, target)))
    agent = next((e for e in project.composed if e.agent_service), None)
    if agent and agent.from_v1 and not key and edited.refused is None:
        note = f"{agent.agent_service}: with --core-public-key KEY it is pinned to Core's key as well"
        edited = replace(edited, notes=(*edited.notes, note))
    return edited


def _with_pin(edited: FileEdit, projects: Iterable[ProjectEdit]) -> FileEdit:
    """Core's key on top of the other edits of a file."""
    for pin in [project.pin for project in projects if project.pin and project.pin.path == edited.path]:
        if pin.refused:
            return replace(edited, refused=pin.refused)
        if pin.after == edited.after:
            continue
        if pin.before != edited.after:
            error = EditRefused("agents of several compose files get Core's key from it", hint="give them one by one")
            return replace(edited, refused=error)
        edited = replace(edited, after=pin.after, reasons=edited.reasons + pin.reasons, notes=edited.notes + pin.notes)
    return edited


def _env(
    path: str, text: str, readers: Mapping[str, ProjectEdit], done: Mapping[str, FileEdit], target: str
) -> FileEdit:
    refused = next((compose for compose in readers if done[compose].refused is not None), "")
    edits = [edit for project in readers.values() for edit in project.composed]
    edited = edit_env_file(path, text, edits, target=target, fills=True, refused=refused)
    if not edited.refused:
        edited = _with_pin(edited, readers.values())
    if edited.refused:
        return edited
    left = _not_edited(edited.after, target)
    if left and not edits:
        error = EditRefused("; ".join(left), hint="give the compose file that reads this file together with it")
        return replace(edited, refused=error)
    if edits or TAG_VARIABLE in values(text):
        return replace(edited, notes=(*edited.notes, *left))
    note = "which variable holds the image's tag is written in the compose file: give both together"
    return replace(edited, notes=(*edited.notes, note))


def _other(path: str, text: str, kind: str, key: str, target: str, *, by_file: bool) -> FileEdit:
    same = FileEdit(path=path, kind=kind, before=text, after=text)
    if kind == "core-config":
        return replace(same, notes=("v2 reads v1's core.config.toml as it is: nothing to do",))
    if kind == "unknown" and is_sops(text) and not mentions(text):
        return replace(same, notes=("encrypted by sops, without a name that is edited: nothing to do",))
    if kind != "periphery-config":
        return replace(same, refused=by_hand(path, text, target) or _unknown(path, text))
    pinned = inspect(text).core_public_keys or ()
    edited = edit_config(path, text, key or PLACEHOLDER, by_file=by_file)
    if edited.refused:
        return edited
    if key:
        return replace(edited, version="2" if pinned else "")
    missing = EditRefused(
        "Core's key is what this file needs, and it was not given",
        snippet='core_public_keys = ["<Core\'s key>"]',
        hint="add --core-public-key KEY (Komodo's Settings page shows it once Core is on v2)",
    )
    has_key = any(understood(entry) for entry in pinned)
    return replace(same, notes=edited.notes, refused=None if has_key else missing)


_SHOWN = 5
"""Lines of one file that a refusal names."""


def _not_edited(text: str, target: str) -> list[str]:
    """Sentences about lines that name one of Komodo's images in another version than the target."""
    lines = text.splitlines()
    return [
        f"line {line} names {ref} and is not edited"
        for line, ref in mentions(text)
        if not lines[line - 1].lstrip().startswith("#") and not ref.endswith(":") and for_target(ref, target) != ref
    ]


def by_hand(path: str, text: str, target: str) -> EditRefused | None:
    """The refusal of a file that names Komodo's images in a form that is not edited; None: it names none."""
    found = mentions(text)
    if not found:
        return None
    named = "; ".join(f"line {line}: {ref}" for line, ref in found[:_SHOWN]) + "; …" * (len(found) > _SHOWN)
    what, wanted = describe(path, text), dict.fromkeys(for_target(ref, target) for _, ref in found)
    lines = [*wanted, f"# an init process: init: true, --init; and a folder or volume at {KEYS}"]
    if what == "a Quadlet":
        lines = [*(f"Image={ref}" for ref in wanted), "RunInit=true", f"Volume=komodo-keys:{KEYS}"]
    return EditRefused(
        f"{what} is not edited, and it names Komodo's images: {named}",
        snippet="\n".join(lines),
        hint="make these changes by hand",
    )


def _unknown(path: str, text: str) -> EditRefused:
    lines = [f"line {n}" for n, line in enumerate(text.splitlines(), 1) if re.search(r"komodo|periphery", line, re.I)]
    if lines and (what := describe(path, text)) != "this file":
        return EditRefused(
            f"{what} is not edited; Komodo is named on {', '.join(lines[:_SHOWN])}{', …' * (len(lines) > _SHOWN)}",
            hint="set Komodo's version there by hand, where this file sets it",
        )
    return EditRefused(
        "this is no file that Komodo's upgrade changes (compose.yaml, an env file, periphery.config.toml)",
        hint="leave it out",
    )
