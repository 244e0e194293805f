"""From the texts of files to planned edits: the one pipeline behind `edit`, `plan`, `start` and each agent's config."""

from __future__ import annotations

import contextlib
import hashlib
import posixpath
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath

from komodo.compose.agent_key import NAME, SetElsewhere, pin_agent_key
from komodo.compose.edit import ComposeEdit, edit_compose
from komodo.compose.overrides import NO_OVERRIDES, overrides_of
from komodo.compose.reference import version_of
from komodo.compose.services import NothingHere, env_files, find, service_names
from komodo.compose.yaml_nodes import load
from komodo.files.diff import hunks, masked_diff
from komodo.files.env import FIRST_SERVER, TAG_VARIABLE, edit_env, pin_in_env, values
from komodo.files.periphery_toml import edit_periphery_config
from komodo.public_key import PLACEHOLDER, pem_of
from model.errors import EditRefused
from model.facts import KEY_FILE, PlannedEdit


@dataclass(frozen=True, slots=True, kw_only=True)
class FileEdit:
    """One file before and after. Texts may hold secrets: they belong into no result and no log."""

    path: str
    kind: str
    """compose | env | periphery-config | core-config | KEY_FILE | unknown"""
    before: str = field(repr=False)
    after: str = field(repr=False)
    reasons: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    refused: EditRefused | None = None
    version: str = ""
    """Komodo's version that the file names today: "latest", "2", "2.3.1"; empty: it names none."""

    @property
    def base_sha256(self) -> str:
        """Of the file as it is."""
        return digest(self.before)

    @property
    def result_sha256(self) -> str:
        """Of the file as it will be."""
        return digest(self.after)

    @property
    def changed(self) -> bool:
        """There is something to write."""
        return self.refused is None and self.before != self.after

    @property
    def backup_suffix(self) -> str:
        """The guide's name for the copy: `.bak_v1`; from v2 on with the version, `.bak_v2.0.0`."""
        version = self.version.split("@")[0].removeprefix("v")
        return f".bak_v{version}" if version_of(version)[:1] >= (2,) else ".bak_v1"

    def planned(self, *, with_key: bool = False, repositories: Collection[str] = ()) -> PlannedEdit:
        """As the plan shows it: digests and a masked diff. `repositories`: git work trees of its host."""
        repository = max((r for r in repositories if PurePosixPath(self.path).is_relative_to(r)), key=len, default="")
        # Core's key is only known after Core's upgrade.
        known = repository and PLACEHOLDER not in self.after
        return PlannedEdit(
            path=self.path,
            kind=self.kind,
            base_sha256=self.base_sha256,
            result_sha256=self.result_sha256,
            diff=masked_diff(self.before, self.after, self.path, self.kind),
            reasons=self.reasons,
            repository=repository,
            hunks=(hunks(self.before, self.after, self.kind) or ()) if known else (),
            with_key=with_key,
        )


def digest(text: str) -> str:
    """sha256 of a file with this text."""
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class ProjectFiles:
    """The files of one Compose project: path → text."""

    directory: str
    """Relative paths in the compose files start here."""
    compose: Mapping[str, str]
    """In Compose's order."""
    envs: Mapping[str, str] = field(default_factory=dict)
    """Every env file that was read."""
    extendable: Mapping[str, str] = field(default_factory=dict)
    """Compose files that `extends` may name, by their path from the directory."""
    fills: tuple[str, ...] = ()
    """The env files that fill in `${…}`. The last one takes precedence."""
    any_env_file: bool = False
    """An `env_file:` that is not among `envs` may be any of them (files that a user gives by hand)."""

    def variables(self) -> dict[str, str]:
        """What `${…}` is filled in from. Raises EditRefused where an env file cannot be read."""
        return self._values(path for path in self.fills if path in self.envs)

    def env_files(self, service: str) -> tuple[str, ...]:
        """The paths in `env_file:` of a service, in any of the compose files. Unreadable YAML has none."""
        found: list[str] = []
        for text in self.compose.values():
            if "env_file" in text:  # reading YAML takes longer
                with contextlib.suppress(EditRefused):
                    found += env_files(load(text, snippet=""), service)
        here = PurePosixPath(self.directory)
        return tuple(dict.fromkeys(str(here / name.removeprefix("./")) for name in found if "$" not in name))

    def with_text(self, path: str, text: str) -> ProjectFiles:
        """The same files with another text of one of them."""
        if path in self.compose:
            return replace(self, compose={**self.compose, path: text})
        return replace(self, envs={**self.envs, path: text})

    def given(self, service: str) -> dict[str, str]:
        """What `env_file:` gives to a service; files that were not read are left out."""
        named = self.env_files(service)
        known = [path for path in named if path in self.envs]
        return self._values(known or (self.envs if named and self.any_env_file else ()))

    def _values(self, paths: Iterator[str] | Mapping[str, str] | Sequence[str]) -> dict[str, str]:
        found: dict[str, str] = {}
        for path in paths:
            with _naming(path):
                found |= values(self.envs[path])
        return found


@contextlib.contextmanager
def _naming(path: str) -> Iterator[None]:
    """A refusal names the file it is about."""
    try:
        yield
    except EditRefused as error:
        raise EditRefused(f"{path}: {error.what}", snippet=error.snippet, hint=error.hint) from None


@dataclass(frozen=True, slots=True, kw_only=True)
class ProjectEdit:
    """All edits of one project, in the order in which they are made."""

    files: tuple[FileEdit, ...]
    """Compose files that run Komodo, then env files; those without changes included."""
    pin: FileEdit | None = None
    """Core's key for the project's agent, on top of the other edits."""
    composed: tuple[ComposeEdit, ...] = ()
    keys_dir: str = ""
    """Where Core's keys are on its host; empty for a named volume."""
    key_folders: Mapping[str, str] = field(default_factory=dict)
    """Service → the folder of its host that holds its keys after the edits; not where the files do not show one."""
    first_server_gone: tuple[str, ...] = ()
    """KOMODO_FIRST_SERVER* variables that the edits comment out of env files."""
    nothing: Mapping[str, NothingHere] = field(default_factory=dict)
    """Compose files that run nothing of Komodo."""

    @property
    def core_service(self) -> str:
        """Empty where no file runs Core."""
        return next((e.core_service for e in self.composed if e.core_service), "")

    @property
    def agent_service(self) -> str:
        """Empty where no file runs an agent."""
        return next((e.agent_service for e in self.composed if e.agent_service), "")

    @property
    def images(self) -> dict[str, str]:
        """Service → its image after the edits."""
        return {service: image for e in self.composed for service, image in e.images.items()}

    @property
    def notes(self) -> tuple[str, ...]:
        """What was found and left as it is."""
        return tuple(dict.fromkeys(note for file in self.files for note in file.notes))

    def planned(self, repositories: Collection[str] = ()) -> tuple[PlannedEdit, ...]:
        """What the plan shows. `repositories`: git work trees of the host."""
        pin = (self.pin.planned(with_key=True, repositories=repositories),) if self.pin else ()
        return (*(e.planned(repositories=repositories) for e in self.files if e.changed), *pin)

    def refuse_unsafe(self) -> None:
        """Raise EditRefused where a file is refused."""
        for file in self.files:
            if file.refused is not None:
                named = file.refused.what.startswith(tuple(f"{f.path}: " for f in self.files))
                what = file.refused.what if named else f"{file.path}: {file.refused.what}"
                raise EditRefused(what, snippet=file.refused.snippet, hint=file.refused.hint)

    def refuse_incomplete(self) -> None:
        """Raise EditRefused where a file is refused, or none runs Core."""
        self.refuse_unsafe()
        if not self.core_service:
            found = [f"{path}: {nothing.what}" for path, nothing in self.nothing.items()]
            hint = next(
                (n.hint for n in self.nothing.values()), "name all of the project's files: [core] compose_files"
            )
            raise EditRefused("; ".join(found) or "none of the project's compose files runs Core", hint=hint)


def edit_project(
    files: ProjectFiles, *, target: str, keys_mount: str = "bind", key: str = "", copies_keys: bool = False
) -> ProjectEdit:
    """Edit a project's files to the target. `key` (or a plan's placeholder) is pinned in its agent; empty: nothing is.

    `copies_keys`: key pairs that are inside of containers will be copied into `key_folders`; otherwise they refuse the
    file. What is wrong with a file is in its FileEdit, never raised.
    """
    edits: dict[str, ComposeEdit] = {}
    results: list[FileEdit] = []
    nothing: dict[str, NothingHere] = {}
    for path, text in files.compose.items():
        same = FileEdit(path=path, kind="compose", before=text, after=text)
        try:
            edits[path] = edit = _edit_compose(files, path, target, keys_mount, copies_keys=copies_keys)
        except NothingHere as error:
            nothing[path] = error
        except EditRefused as error:
            results.append(replace(same, refused=error))
        else:
            done = replace(same, after=edit.text, reasons=edit.reasons, notes=edit.notes, version=edit.version)
            results.append(done)
    results = _refuse_two_cores(results, edits)
    refused = next((file.path for file in results if file.refused), "")
    edited = list(edits.values())
    for path, text in files.envs.items():
        results.append(edit_env_file(path, text, edited, target=target, fills=path in files.fills, refused=refused))
    edited_files = replace(
        files,
        compose={**files.compose, **{f.path: f.after for f in results if f.kind == "compose"}},
        envs={f.path: f.after for f in results if f.kind == "env"},
    )
    pin = None
    if key and not refused:
        pin = pin_agents(edited_files, key)
        if pin and pin.refused:
            results = [replace(f, refused=pin.refused) if f.path == pin.path else f for f in results]
    core = next((edit.core_service for edit in edited if edit.core_service), "")
    folders = {
        service: posixpath.normpath(PurePosixPath(files.directory) / folder)
        for edit in edited
        for service, folder in edit.key_folders.items()
    }
    return ProjectEdit(
        files=tuple(results),
        pin=pin if pin and (pin.changed or pin.refused) else None,
        composed=tuple(edited),
        keys_dir=folders.get(core, ""),
        key_folders=folders,
        first_server_gone=_first_server_gone(results),
        nothing=nothing,
    )


def _edit_compose(files: ProjectFiles, path: str, target: str, keys_mount: str, *, copies_keys: bool) -> ComposeEdit:
    text = files.compose[path]
    return edit_compose(
        text,
        target=target,
        env=files.variables(),
        keys_mount=keys_mount,
        others=overrides_of(files.compose, path),
        env_files={name: files.given(name) for name in service_names(load(text, snippet=""))},
        extended=files.extendable,
        copies_keys=copies_keys,
    )


def _refuse_two_cores(results: list[FileEdit], edits: dict[str, ComposeEdit]) -> list[FileEdit]:
    with_core = [path for path, edit in edits.items() if edit.core_service]
    if len(with_core) < 2:
        return results
    error = EditRefused(
        f"Core's service must be in exactly one of the project's compose files; found in: {', '.join(with_core)}",
        hint="leave the image of Core's service in one of them and take it out of the others",
    )
    return [replace(file, refused=error) if file.path in with_core else file for file in results]


def edit_env_file(
    path: str, text: str, edits: Sequence[ComposeEdit], *, target: str, fills: bool, refused: str = ""
) -> FileEdit:
    """One env file, for the compose files that read it. `refused`: one of these that cannot be edited.

    `fills`: Compose fills in `${…}` from it. Without it the file only gives variables to a service.
    """
    same = FileEdit(path=path, kind="env", before=text, after=text)
    try:
        known = values(text)
        if refused:
            snippet = f"{TAG_VARIABLE}={target}" if TAG_VARIABLE in known else ""
            what = f"left alone, because {refused} is refused and the two belong together"
            return replace(same, refused=EditRefused(what, snippet=snippet))
        variables = tuple(dict.fromkeys(v for e in edits for v in e.tag_variables)) if edits else (TAG_VARIABLE,)
        deciding = [e for e in edits if e.core_service] or list(edits)
        from_v1 = any(e.from_v1 for e in deciding) if edits else None
        edited = edit_env(text, target=target, tag_variables=variables if fills else (), from_v1=from_v1)
    except EditRefused as error:
        return replace(same, refused=error)
    version = edits[0].version if edits else known.get(TAG_VARIABLE, "")
    return replace(same, after=edited.text, reasons=edited.reasons, notes=edited.notes, version=version)


def pin_agents(files: ProjectFiles, key: str) -> FileEdit | None:
    """Core's key (or a plan's placeholder) for the project's agents: in the compose file, or in the env file that
    gives the variable to them. None: the project has no agent."""
    edits: list[FileEdit] = []
    for path, text in files.compose.items():
        with contextlib.suppress(NothingHere):
            found = find(load(text, snippet=""), text, files.variables(), "", extended=files.extendable)
            for agent in found.agents:
                edit = _pin_agent(files, path, agent.name, key)
                if edit.refused:
                    return edit
                edits.append(edit)
                files = files.with_text(edit.path, edit.after)
    if not edits:
        return None
    changed = [edit for edit in edits if edit.changed] or edits[:1]
    if len({edit.path for edit in changed}) > 1:
        what = f"the project's agents get Core's key from several files: {', '.join(e.path for e in changed)}"
        return replace(changed[0], refused=EditRefused(what, snippet=f"{NAME}={key}", hint="pin it by hand in each"))
    reasons = tuple(dict.fromkeys(reason for edit in changed for reason in edit.reasons))
    return replace(changed[-1], before=changed[0].before, reasons=reasons)


def _pin_agent(files: ProjectFiles, path: str, service: str, key: str) -> FileEdit:
    before = files.compose[path]
    same = FileEdit(path=path, kind="compose", before=before, after=before)
    overrides = overrides_of(files.compose, path).get(service, NO_OVERRIDES)
    try:
        done = pin_agent_key(
            before, service=service, key=key, env=files.variables(), given=files.given(service), overrides=overrides
        )
    except SetElsewhere as error:
        places = files.fills if error.fills else files.env_files(service)
        known = [env for env in places if env in files.envs] or (list(files.envs) if files.any_env_file else [])
        holder = next((env for env in reversed(known) if error.variable in values(files.envs[env])), "")
        return _pin_in_env(files, holder, error.variable, key) if holder else _refused(same, error)
    except EditRefused as error:
        return _refused(same, error)
    return replace(same, after=done.text, reasons=done.reasons, notes=done.notes)


def _pin_in_env(files: ProjectFiles, path: str, variable: str, key: str) -> FileEdit:
    text = files.envs[path]
    same = FileEdit(path=path, kind="env", before=text, after=text)
    try:
        done = pin_in_env(text, name=variable, key=key)
    except EditRefused as error:
        return _refused(same, error)
    return replace(same, after=done.text, reasons=done.reasons)


def edit_config(
    path: str, text: str, key: str, *, by_file: bool = False, key_file: str = "", instead_of: str = ""
) -> FileEdit:
    """Core's key (or a plan's placeholder), or a reference to a file with it, in a periphery.config.toml."""
    same = FileEdit(path=path, kind="periphery-config", before=text, after=text)
    try:
        edited = edit_periphery_config(text, key=key, by_file=by_file, key_file=key_file, instead_of=instead_of)
    except EditRefused as error:
        return _refused(same, error)
    return replace(same, after=edited.text, reasons=edited.reasons, notes=edited.notes)


def planned_key_file(path: str) -> PlannedEdit:
    """The file that will hold Core's key, for an agent that pins it by `file:`; whatever it holds, nothing reads it."""
    text = pem_of(PLACEHOLDER)
    return PlannedEdit(
        path=path,
        kind=KEY_FILE,
        base_sha256="",
        result_sha256=digest(text),
        diff="".join([f"--- /dev/null\n+++ {path}\n", *(f"+{line}\n" for line in text.splitlines())]),
        reasons=("Core's public key, which the agent replaces when Core rotates its keys",),
    )


def _refused(same: FileEdit, error: EditRefused) -> FileEdit:
    """Lines to paste show words where a plan has its placeholder."""
    error.snippet = error.snippet.replace(PLACEHOLDER, "<Core's public key>")
    error.hint = error.hint.replace(PLACEHOLDER, "<Core's public key>")
    return replace(same, refused=error)


def _first_server_gone(results: Sequence[FileEdit]) -> tuple[str, ...]:
    gone: list[str] = []
    for file in results:
        if file.kind == "env" and file.changed:
            before, after = values(file.before), values(file.after)
            gone += [name for name in FIRST_SERVER if name in before and name not in after]
    return tuple(dict.fromkeys(gone))
