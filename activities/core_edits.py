"""What changes in the files of Core's project: computed for the plan, and again, equal, before each file is written."""

from __future__ import annotations

import contextlib
import hashlib
import posixpath
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

from ruamel.yaml.nodes import ScalarNode

from activities.core_access import project_of
from hosts.host import Host, RemoteFile
from komodo.compose import ComposeEdit, edit_compose, pin_agent_key
from komodo.compose_beside import NOTHING, besides
from komodo.compose_services import NOTHING_HERE, env_files, service_names, services_in
from komodo.compose_text import effective, load
from komodo.diff import masked_diff
from komodo.environment import FIRST_SERVER, edit_env, values
from komodo.project import Container
from komodo.public_key import PLACEHOLDER
from model.errors import EditRefused, HostError, PlanChanged
from model.facts import ComposeProject, CoreFacts, PlannedEdit

_KOMODO_IMAGE = re.compile(r"^\s*image:.*(?:komodo-core|komodo-periphery|mbecker20/(?:komodo|periphery))", re.MULTILINE)
AGENT_KEYS = "PERIPHERY_CORE_PUBLIC_KEYS"


@dataclass(frozen=True, slots=True, kw_only=True)
class FileEdit:
    """One file before and after. Texts may hold secrets: never in a result or a log."""

    path: str
    kind: str
    """compose | env"""
    before: str
    after: str
    reasons: tuple[str, ...]

    @property
    def base_sha256(self) -> str:
        """Of the file as it is."""
        return digest(self.before)

    @property
    def result_sha256(self) -> str:
        """Of the file as it will be."""
        return digest(self.after)

    @property
    def changes(self) -> bool:
        """There is something to do."""
        return self.before != self.after

    def __repr__(self) -> str:
        return f"FileEdit({self.path!r}, {self.kind}, {self.base_sha256[:12]} -> {self.result_sha256[:12]})"

    def planned(self) -> PlannedEdit:
        """As the plan shows it: digests and a masked diff."""
        return PlannedEdit(
            path=self.path,
            kind=self.kind,
            base_sha256=self.base_sha256,
            result_sha256=self.result_sha256,
            diff=masked_diff(self.before, self.after, self.path, self.kind),
            reasons=self.reasons,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class CoreEdits:
    """All edits on Core's host, in the order in which they are made."""

    files: tuple[FileEdit, ...]
    """Compose files, then env files; those without changes included."""
    pin: FileEdit | None
    """Core's key for the agent in Core's project, on top of the compose edit."""
    core_service: str
    agent_service: str
    images: Mapping[str, str]
    """service -> image after the edits"""
    keys_dir: str
    """On the host; empty for a named volume."""
    notes: tuple[str, ...] = ()
    first_server_gone: tuple[str, ...] = ()
    """KOMODO_FIRST_SERVER* variables that the edits comment out."""

    def planned(self) -> tuple[PlannedEdit, ...]:
        """What the plan shows."""
        pin = (replace(self.pin.planned(), with_key=True),) if self.pin else ()
        return (*(e.planned() for e in self.files if e.changes), *pin)


def digest(text: str) -> str:
    """sha256 of a file with this text."""
    return hashlib.sha256(text.encode()).hexdigest()


def decode(file: RemoteFile) -> str:
    """A file's text, newlines untouched. Raises EditRefused where it is no UTF-8."""
    try:
        return file.data.decode()
    except UnicodeDecodeError:
        raise EditRefused(f"{file.path} is no UTF-8 text", cure="save it as UTF-8, then plan again") from None


async def read_texts(host: Host, paths: tuple[str, ...]) -> dict[str, str]:
    """Texts of files that must exist."""
    found: dict[str, str] = {}
    for path in dict.fromkeys(paths):
        file = await host.read(path)
        if file is None:
            raise HostError(f"there is no file {path}", host=host.spec.name, cure="correct [core] in the fleet file")
        found[path] = decode(file)
    return found


def env_file_paths(texts: Mapping[str, str], project: ComposeProject, service: str) -> tuple[str, ...]:
    """What `env_file:` of a service names in any of the project's compose files, absolute. Unreadable YAML: nothing."""
    found: list[str] = []
    for path in project.files:
        with contextlib.suppress(EditRefused):
            found += env_files(load(texts.get(path, ""), snippet=""), service)
    here = PurePosixPath(project.directory)
    return tuple(dict.fromkeys(str(here / name.removeprefix("./")) for name in found if "$" not in name))


def profiles(texts: Mapping[str, str], service: str) -> tuple[str, ...]:
    """The `profiles:` of a service in any of the project's compose files."""
    found: list[str] = []
    for text in texts.values():
        with contextlib.suppress(EditRefused):
            for document in load(text, snippet=""):
                bodies = [node for key, node in services_in(document) if key.value == service]
                named = [value for node in bodies if (value := effective(node, "profiles"))]
                found += [str(item.value) for value in named for item in value[2].value if isinstance(item, ScalarNode)]
    return tuple(dict.fromkeys(found))


def interpolation_file(project: ComposeProject) -> str:
    """The file compose fills `${…}` from: --env-file, else `.env` in the project's directory (which may not exist)."""
    return project.env_file or str(PurePosixPath(project.directory) / ".env")


def compute(
    project: ComposeProject,
    compose: Mapping[str, str],
    envs: Mapping[str, str],
    *,
    target: str,
    keys_mount: str,
    service_env_files: tuple[str, ...],
    pinned: bool = False,
) -> CoreEdits:
    """The edits. `compose` and `envs`: texts by path. `pinned`: the agent has Core's present key already.

    Raises EditRefused, with the snippet to paste, where a file cannot be edited safely.
    """
    for path in sorted({interpolation_file(project), *service_env_files} & envs.keys()):
        with _of(path):
            values(envs[path])
    filled = values(envs.get(interpolation_file(project), ""))
    chosen = [p for p in project.files if _KOMODO_IMAGE.search(compose[p])] or list(project.files)
    edits: dict[str, ComposeEdit] = {}
    for path in chosen:
        edits[path] = _edit_one(path, compose, project, envs, target, filled, keys_mount)
    with_core = [p for p, e in edits.items() if e.core_service]
    if len(with_core) != 1:
        named = ", ".join(with_core) or "none"
        raise EditRefused(
            f"Core's service must be in exactly one of the project's compose files; found in: {named}",
            cure="leave the image of Core's service in one of them and take it out of the others",
        )
    core_path = with_core[0]
    core = edits[core_path]
    agent_path = next((p for p, e in edits.items() if e.agent_service), "")
    files = [
        FileEdit(path=p, kind="compose", before=compose[p], after=e.text, reasons=e.reasons) for p, e in edits.items()
    ]
    variables = tuple(dict.fromkeys(v for e in edits.values() for v in e.tag_variables))
    notes = [n for e in edits.values() for n in e.notes]
    gone: list[str] = []
    for path in dict.fromkeys((interpolation_file(project), *service_env_files)):
        if path not in envs:
            continue
        mine = variables if path == interpolation_file(project) else ()
        with _of(path):
            edited = edit_env(envs[path], target=target, tag_variables=mine, from_v1=core.from_v1)
        notes += edited.notes
        gone += [n for n in FIRST_SERVER if n in values(envs[path]) and n not in values(edited.text)]
        files.append(FileEdit(path=path, kind="env", before=envs[path], after=edited.text, reasons=edited.reasons))
    pin = None
    if agent_path and not pinned:
        agent = edits[agent_path]
        known: dict[str, str] = {}
        for path in service_env_files:
            known |= values(envs.get(path, ""))
        name = agent.agent_service or ""
        others = besides({p: compose[p] for p in project.files}, agent_path).get(name, NOTHING)
        done = pin_agent_key(agent.text, service=name, key=PLACEHOLDER, env=known, beside=others)
        pin = FileEdit(path=agent_path, kind="compose", before=agent.text, after=done.text, reasons=done.reasons)
    return CoreEdits(
        files=tuple(files),
        pin=pin if pin and pin.changes else None,
        core_service=core.core_service,
        agent_service=(edits[agent_path].agent_service or "") if agent_path else "",
        images={s: i for e in edits.values() for s, i in e.images.items()},
        keys_dir=_keys_dir(core, project),
        notes=tuple(dict.fromkeys(notes)),
        first_server_gone=tuple(dict.fromkeys(gone)),
    )


@contextlib.contextmanager
def _of(path: str) -> Iterator[None]:
    """A refusal names the file it is about."""
    try:
        yield
    except EditRefused as error:
        raise EditRefused(f"{path}: {error.what}", snippet=error.snippet, cure=error.cure) from None


def _edit_one(
    path: str,
    compose: Mapping[str, str],
    project: ComposeProject,
    envs: Mapping[str, str],
    target: str,
    filled: Mapping[str, str],
    keys_mount: str,
) -> ComposeEdit:
    others = besides({p: compose[p] for p in project.files}, path)
    text = compose[path]
    try:
        given = {name: _given(compose, project, envs, name) for name in service_names(load(text, snippet=""))}
        return edit_compose(text, target=target, env=filled, keys_mount=keys_mount, others=others, env_files=given)
    except EditRefused as error:
        what, cure = error.what, error.cure
        if what == NOTHING_HERE and re.search(r"^[\"']?include[\"']?\s*:", text, re.MULTILINE):
            what = f"{what}; files that it includes are not edited"
            cure = "name them with -f (or COMPOSE_FILE) instead of `include`, `up -d` once, then try again"
        raise EditRefused(f"{path}: {what}", snippet=error.snippet, cure=cure) from None


def _given(
    compose: Mapping[str, str], project: ComposeProject, envs: Mapping[str, str], service: str
) -> dict[str, str]:
    """What `env_file:` of a service gives it; files that nobody has read are left out."""
    found: dict[str, str] = {}
    for path in env_file_paths(compose, project, service):
        found |= values(envs.get(path, ""))
    return found


def _keys_dir(edit: ComposeEdit, project: ComposeProject) -> str:
    if edit.keys_named or not edit.keys_source:
        return ""
    folder = posixpath.normpath(PurePosixPath(project.directory) / edit.keys_source)
    return folder if edit.keys_target == "/config/keys" else f"{folder}/keys"


def planned_files(facts: CoreFacts) -> tuple[PlannedEdit, ...]:
    """Edits that are in place before Core starts."""
    return tuple(e for e in facts.edits if not e.with_key)


def planned_pin(facts: CoreFacts) -> PlannedEdit | None:
    """The edit that gives Core's key to the agent in Core's project."""
    return next((e for e in facts.edits if e.with_key), None)


def staged_name(path: str) -> str:
    """Name of a file's prepared version in the run folder's `staged`."""
    return f"{hashlib.sha256(path.encode()).hexdigest()[:8]}-{PurePosixPath(path).name}"


async def read_and_compute(host: Host, facts: CoreFacts, target: str, keys_mount: str) -> CoreEdits:
    """The edits from the files as they are now."""
    project = project_of(facts)
    compose = await read_texts(host, project.files)
    wanted = service_env_files(compose, project, facts)
    envs: dict[str, str] = {}
    for path in dict.fromkeys((interpolation_file(project), *wanted)):
        file = await host.read(path)
        if file is not None:
            envs[path] = decode(file)
    edits = compute(project, compose, envs, target=target, keys_mount=keys_mount, service_env_files=wanted)
    if planned_pin(facts) is None:
        return replace(edits, pin=None)  # the agent is pinned already
    return edits


def service_env_files(compose: Mapping[str, str], project: ComposeProject, facts: CoreFacts) -> tuple[str, ...]:
    """Env files of Core's service and of the agent's beside it."""
    names = [s.service for s in (facts.core, facts.agent) if s and s.service]
    return tuple(dict.fromkeys(p for n in names for p in env_file_paths(compose, project, n)))


def require_planned(host: str, edits: CoreEdits, facts: CoreFacts) -> None:
    """The files and the edits are those of the approved plan. Raises PlanChanged."""
    planned = {(e.path, e.base_sha256, e.result_sha256) for e in facts.edits}
    now = {(e.path, e.base_sha256, e.result_sha256) for e in edits.planned()}
    if now != planned:
        names = ", ".join(sorted({p for p, _, _ in now ^ planned}))
        raise PlanChanged(
            f"{names}: not what was planned and approved any more",
            host=host,
            left="nothing was changed by this step",
            cure="look at what was changed there, then plan and approve again: komodo-upgrade start",
        )


def pinned_key(agent: Container | None) -> str:
    """Core's key that the running agent's environment pins; "" for none."""
    if agent is None:
        return ""
    return agent.setting(AGENT_KEYS) or agent.setting("PERIPHERY_CORE_PUBLIC_KEY")
