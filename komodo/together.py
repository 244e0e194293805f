"""Files that belong together, edited together: a compose file is understood with the env file that fills it in."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePath

from komodo.compose import ComposeEdit, edit_compose, pin_agent_key
from komodo.compose_beside import NOTHING, besides
from komodo.compose_services import NOTHING_HERE
from komodo.environment import TAG_VARIABLE, edit_env, values
from komodo.image import version_of
from komodo.periphery_config import edit_periphery_config, inspect
from komodo.public_key import PLACEHOLDER, understood
from komodo.recognise import FileKind, kind_of
from model.errors import EditRefused

_IMAGES = re.compile(r"komodo-(?:core|periphery)|mbecker20/(?:komodo|periphery)")


@dataclass(frozen=True, slots=True, kw_only=True)
class FileEdit:
    """What becomes of one file."""

    path: str
    kind: FileKind
    before: str
    after: str
    reasons: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    refused: EditRefused | None = None
    version: str = ""
    """Of Komodo, as the file has it today: "latest", "2", "2.3.1"; empty: not to be seen in it."""

    @property
    def changed(self) -> bool:
        """There is something to write."""
        return self.refused is None and self.before != self.after

    @property
    def backup_suffix(self) -> str:
        """The guide's name for the copy: `.bak_v1`; from v2 on with the version, `.bak_v2.0.0`."""
        version = self.version.split("@")[0].removeprefix("v")
        return f".bak_v{version}" if version_of(version)[:1] >= (2,) else ".bak_v1"


def edit_together(files: Sequence[tuple[str, str]], *, target: str, key: str = "") -> tuple[FileEdit, ...]:
    """Edit (path, text) pairs to the target, in the order given. `key` empty: nothing is pinned.

    A compose file goes with the env files of its own folder, else with all that are given. What is wrong with a file
    is in its result, never raised.
    """
    kinds = {path: kind_of(path, text) for path, text in files}
    envs = [(path, text) for path, text in files if kinds[path] == "env"]
    composes: dict[str, ComposeEdit | None] = {}
    done: dict[str, FileEdit] = {}
    for path in kinds:
        if kinds[path] == "compose":
            done[path], composes[path] = _compose(path, _joined(path, files, kinds), _paired(path, envs), target, key)
    for path, text in files:
        if kinds[path] == "env":
            mine = [c for c in composes if path in dict(_paired(c, envs))]
            done[path] = _env(path, text, mine, composes, done, target)
        elif kinds[path] != "compose":
            done[path] = _other(path, text, kinds[path], key)
    return tuple(done[path] for path, _ in files)


def _paired(compose: str, envs: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    beside = [(path, text) for path, text in envs if PurePath(path).parent == PurePath(compose).parent]
    return beside or list(envs)


def _joined(path: str, files: Sequence[tuple[str, str]], kinds: Mapping[str, FileKind]) -> dict[str, str]:
    """The file, and those of its folder that only add to its services, in the order given; compose.override.yaml last.

    Two files that both have Komodo's images are two projects, or two variants of one.
    """
    folder = PurePath(path).parent
    return {
        other: text
        for other, text in sorted(files, key=lambda file: ".override." in PurePath(file[0]).name)
        if kinds[other] == "compose"
        and (other == path or (PurePath(other).parent == folder and not _IMAGES.search(text)))
    }


def _compose(
    path: str, texts: Mapping[str, str], envs: Sequence[tuple[str, str]], target: str, key: str
) -> tuple[FileEdit, ComposeEdit | None]:
    env: dict[str, str] = {}
    text = texts[path]
    try:
        for _, env_text in envs:
            env |= values(env_text)
        others = besides(texts, path)
        edit = edit_compose(text, target=target, env=env, others=others)
        after, reasons, notes = edit.text, edit.reasons, edit.notes
        if edit.agent_service and key:
            beside = others.get(edit.agent_service, NOTHING)
            pinned = pin_agent_key(after, service=edit.agent_service, key=key, env=env, beside=beside)
            after, reasons, notes = pinned.text, reasons + pinned.reasons, notes + pinned.notes
        elif edit.agent_service and edit.from_v1:
            notes += (f"{edit.agent_service}: with --core-public-key KEY it is pinned to Core's key as well",)
    except EditRefused as error:
        if error.what == NOTHING_HERE:
            note = f"{NOTHING_HERE}: nothing to do"
            return FileEdit(path=path, kind="compose", before=text, after=text, notes=(note,)), None
        return FileEdit(path=path, kind="compose", before=text, after=text, refused=error), None
    return FileEdit(
        path=path, kind="compose", before=text, after=after, reasons=reasons, notes=notes, version=edit.version,
    ), edit  # fmt: skip


def _env(
    path: str,
    text: str,
    mine: Sequence[str],
    composes: dict[str, ComposeEdit | None],
    done: dict[str, FileEdit],
    target: str,
) -> FileEdit:
    refused = [c for c in mine if done[c].refused is not None]
    edits = [e for c in mine if (e := composes[c]) is not None]
    try:
        known = values(text)
        if refused:
            alone = _left_alone(refused[0], known, target)
            return FileEdit(path=path, kind="env", before=text, after=text, refused=alone)
        variables = tuple(dict.fromkeys(v for e in edits for v in e.tag_variables)) if edits else (TAG_VARIABLE,)
        from_v1 = any(e.from_v1 for e in edits) if edits else None
        edited = edit_env(text, target=target, tag_variables=variables, from_v1=from_v1)
    except EditRefused as error:
        return FileEdit(path=path, kind="env", before=text, after=text, refused=error)
    notes = edited.notes
    if not edits and TAG_VARIABLE not in known:
        notes += ("which variable holds the image's tag is written in the compose file: give both together",)
    version = edits[0].version if edits else known.get(TAG_VARIABLE, "")
    return FileEdit(
        path=path, kind="env", before=text, after=edited.text, reasons=edited.reasons, notes=notes, version=version
    )


def _left_alone(compose: str, known: Mapping[str, str], target: str) -> EditRefused:
    return EditRefused(
        f"left alone, because {compose} is refused and the two belong together",
        snippet=f"{TAG_VARIABLE}={target}" if TAG_VARIABLE in known else "",
    )


def _other(path: str, text: str, kind: FileKind, key: str) -> FileEdit:
    same = FileEdit(path=path, kind=kind, before=text, after=text)
    if kind == "core-config":
        return replace(same, notes=("v2 reads v1's core.config.toml as it is: nothing to do",))
    if kind != "periphery-config":
        unknown = EditRefused(
            "this is no file that Komodo's upgrade changes (compose.yaml, an env file, periphery.config.toml)",
            cure="leave it out",
        )
        return replace(same, refused=unknown)
    pinned = inspect(text).core_public_keys or ()
    try:
        edited = edit_periphery_config(text, key=key or PLACEHOLDER)
    except EditRefused as error:
        return replace(same, refused=error)
    if key:
        version = "2" if pinned else ""
        return replace(same, after=edited.text, reasons=edited.reasons, notes=edited.notes, version=version)
    missing = EditRefused(
        "Core's key is what this file needs, and it was not given",
        snippet='core_public_keys = ["<Core\'s key>"]',
        cure="add --core-public-key KEY (Komodo's Settings page shows it once Core is on v2)",
    )
    has_key = any(understood(entry) for entry in pinned)
    return replace(same, notes=edited.notes, refused=None if has_key else missing)
