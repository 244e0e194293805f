"""Which services of a compose file are Komodo's, and which services a node belongs to."""

from __future__ import annotations

import contextlib
import posixpath
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from komodo.compose.interpolation import resolve, variables
from komodo.compose.overrides import NO_OVERRIDES, Overrides
from komodo.compose.reference import Kind, komodo_kind, looks_like_komodo, mentions, parse
from komodo.compose.yaml_nodes import effective, load, pair, walk
from komodo.files.splice import line_number
from model.errors import EditRefused


class NothingHere(EditRefused):
    """No service of the file runs Komodo."""

    commented = False
    """Komodo's services are commented out in it."""


_NAMED = re.compile(r"(?:^|[-_.])komodo(?:[-_](?:core|periphery))?$|(?:^|[-_])periphery$", re.IGNORECASE)
_OWN_SETTINGS = re.compile(
    r"^(?:KOMODO_(?:DATABASE|MONGO)_\w+|KOMODO_JWT_SECRET|KOMODO_WEBHOOK_SECRET|KOMODO_FIRST_SERVER\w*|PERIPHERY_\w+)$"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """One service that runs Komodo."""

    name: str
    kind: Kind
    node: MappingNode
    image: ScalarNode
    bases: tuple[MappingNode, ...] = ()
    """What it `extends`, the nearest first."""
    extends_elsewhere: bool = False
    """It extends a service of a file that was not given."""
    overrides: Overrides = NO_OVERRIDES
    """The same service in the project's other files."""

    def own(self, key: str) -> tuple[MappingNode, ScalarNode, Node] | None:
        """A key of the service with `<<`, not what it extends."""
        return effective(self.node, key)

    def inherited(self, key: str) -> Node | None:
        """The value of a key in what it extends, else in the files before this one."""
        return next(iter(self.all_inherited(key)), None)

    def all_inherited(self, key: str) -> tuple[Node, ...]:
        """All of these, the nearest first: Compose joins lists and maps."""
        found = (effective(base, key) for base in (*self.bases, *self.overrides.earlier))
        return tuple(f[2] for f in found if f is not None)

    def everywhere(self, key: str) -> tuple[Node, ...]:
        """The values of a key in all files, the one that takes precedence first."""
        own = self.own(key)
        return (*self.overrides.all_later(key), *((own[2],) if own else ()), *self.all_inherited(key))


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """Komodo's services of a file, and the owners of every node."""

    core: Service | None
    agents: tuple[Service, ...]
    """More than one only where `profiles` tell them apart."""
    owners: Mapping[int, frozenset[str]]
    """Node → the services (or top-level keys) that reach it."""
    others: tuple[MappingNode, ...]
    """Services that are not Komodo's."""
    own_builds: tuple[str, ...] = ()
    """Sentences about agents that run an image of the user's own."""

    @property
    def services(self) -> tuple[Service, ...]:
        """Core first."""
        return (*((self.core,) if self.core else ()), *self.agents)

    def private(self, node: Node) -> bool:
        """Whether only Komodo's services use this node, so that a change to it affects nothing else."""
        return self.owners.get(id(node), frozenset()) <= {s.name for s in self.services}


def find(
    documents: Sequence[Node],
    text: str,
    env: Mapping[str, str],
    snippet: str,
    others: Mapping[str, Overrides] | None = None,
    extended: Mapping[str, str] | None = None,
) -> Found:
    """Komodo's services, by image. Raises EditRefused where there is none, two of a kind, or one that is built.

    `extended`: path → text of other compose files, as `extends` names them.
    """
    every = [(key.value, value) for d in documents for key, value in services_in(d)]
    look_up = _LookUp(here=dict(every), extended=extended or {})
    komodo: list[Service] = []
    foreign: list[tuple[str, MappingNode]] = []
    for name, node in every:
        service = _komodo_service(name, node, look_up, text, env, snippet)
        if service is None:
            foreign.append((name, node))
        else:
            komodo.append(replace(service, overrides=(others or {}).get(name, NO_OVERRIDES)))
    if not komodo:
        raise _nothing(documents, text, snippet)
    core = _distinguish("core", komodo, snippet)
    return Found(
        core=core[0] if core else None,
        agents=_distinguish("periphery", komodo, snippet),
        owners=owners_of(documents),
        others=tuple(node for _, node in foreign),
        own_builds=tuple(note for name, node in foreign if core and (note := _own_build(name, node, text, env))),
    )


def _own_build(name: str, node: MappingNode, text: str, env: Mapping[str, str]) -> str:
    """A sentence about an agent whose image is not one of Komodo's."""
    image = effective(node, "image")
    ref = resolve(image[2].value, env) if image and isinstance(image[2], ScalarNode) else ""
    named = re.search(r"(?:^|[-_.])periphery$", name, re.IGNORECASE)
    if not ref or not (named or any(n.startswith("PERIPHERY_") for n in environment_names(node))):
        return ""
    line = line_number(text, node.start_mark.index)
    return (
        f"line {line}: {name} is an agent with an image of your own ({ref}): bring it to v2 yourself, or Core loses it"
    )


def services_in(document: Node) -> list[tuple[ScalarNode, MappingNode]]:
    """Names and bodies under `services:`."""
    found = pair(document, "services")
    if found is None or not isinstance(found[1], MappingNode):
        return []
    return [(key, value) for key, value in found[1].value if isinstance(value, MappingNode)]


def service_names(documents: Sequence[Node]) -> tuple[str, ...]:
    """Every service of a file."""
    return tuple(str(key.value) for document in documents for key, _ in services_in(document))


def profiles(texts: Iterable[str], service: str) -> tuple[str, ...]:
    """The `profiles:` of a service in any of the compose files. Unreadable YAML has none."""
    found: list[str] = []
    for text in texts:
        with contextlib.suppress(EditRefused):
            every = [body for document in load(text, snippet="") for body in services_in(document)]
            found += [name for key, node in every if key.value == service for name in profiles_of(node)]
    return tuple(dict.fromkeys(found))


def profiles_of(node: MappingNode) -> list[str]:
    """The `profiles:` of a service."""
    found = effective(node, "profiles")
    items = found[2].value if found and isinstance(found[2], SequenceNode) else []
    return [str(item.value) for item in items if isinstance(item, ScalarNode)]


def env_files(documents: Sequence[Node], service: str) -> tuple[str, ...]:
    """What `env_file:` of a service, and of what it extends in this file, names: a string, a list, a list of maps.

    A file in `format: raw` is left out: it is no env file in the usual form.
    """
    every = {key.value: node for document in documents for key, node in services_in(document)}
    if service not in every:
        return ()
    bases, _ = _LookUp(here=every, extended={}).bases(every[service])
    found: list[str] = []
    for node in (*reversed(bases), every[service]):
        named = effective(node, "env_file")
        items = named[2].value if named and isinstance(named[2], SequenceNode) else [named[2]] if named else []
        for item in items:
            path = item if isinstance(item, ScalarNode) else (effective(item, "path") or (None, None, None))[2]
            form = effective(item, "format")
            if isinstance(path, ScalarNode) and not (form and form[2].value == "raw"):
                found.append(str(path.value))
    return tuple(dict.fromkeys(found))


def _nothing(documents: Sequence[Node], text: str, snippet: str) -> NothingHere:
    what, hint = (
        "no service in this file runs one of Komodo's images",
        "give the compose file whose services run Komodo",
    )
    lines = text.splitlines()
    commented = [n for n, _ in mentions(text) if lines[n - 1].lstrip().startswith("#")]
    if commented:
        what = f"Komodo's services are commented out in this file (line {commented[0]}): nothing of Komodo runs from it"
        error = NothingHere(what, snippet=snippet, hint=hint)
        error.commented = True
        return error
    if any(pair(document, "include") for document in documents):
        what += "; files that it includes are not edited"
        hint = "name them with -f (or COMPOSE_FILE) instead of `include`, `up -d` once, then try again"
    return NothingHere(what, snippet=snippet, hint=hint)


def _distinguish(kind: Kind, services: Sequence[Service], snippet: str) -> tuple[Service, ...]:
    """The services of a kind: one, or agents of which no two are ever started together."""
    found = tuple(s for s in services if s.kind == kind)
    sets = [set(profiles_of(s.node)) for s in found]
    apart = kind == "periphery" and all(a and not a & b for i, a in enumerate(sets) for b in sets[:i] + sets[i + 1 :])
    if len(found) > 1 and not apart:
        raise EditRefused(
            f"{len(found)} services run Komodo's {kind} image ({', '.join(s.name for s in found)}): "
            "which of them belong together is not written in the file",
            snippet=snippet,
            hint="make these changes in each of them by hand",
        )
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class _LookUp:
    """Where `extends` finds a service."""

    here: Mapping[str, MappingNode]
    extended: Mapping[str, str]

    def bases(self, node: MappingNode) -> tuple[tuple[MappingNode, ...], bool]:
        """What a service extends, the nearest first, and whether more of it is in a file that is not known."""
        bases: list[MappingNode] = []
        services, current = self.here, node
        while len(bases) < 20:  # a circle ends here
            found = effective(current, "extends")
            if found is None:
                return tuple(bases), False
            value = found[2]
            name, file = pair(value, "service"), pair(value, "file")
            if file is not None:
                path = posixpath.normpath(str(file[1].value))
                if path not in self.extended:
                    break
                documents = load(self.extended[path], snippet="")
                services = {k.value: v for document in documents for k, v in services_in(document)}
            wanted = name[1].value if name else value.value
            if not isinstance(wanted, str) or wanted not in services:
                break
            current = services[wanted]
            bases.append(current)
        return tuple(bases), True


def _komodo_service(
    name: str, node: MappingNode, look_up: _LookUp, text: str, env: Mapping[str, str], snippet: str
) -> Service | None:
    bases, elsewhere = look_up.bases(node)
    holder = next((n for n in (node, *bases) if effective(n, "image")), node)
    image = effective(holder, "image")
    built = next((f for n in (node, *bases) if (f := effective(n, "build"))), None)
    value = image[2] if image else None
    ref = resolve(value.value, env) if isinstance(value, ScalarNode) else ""
    kind = komodo_kind(ref) or (komodo_kind(value.value) if isinstance(value, ScalarNode) else None)
    line = line_number(text, node.start_mark.index)
    if built and (kind or looks_like_komodo(ref) or _is_komodo_like(name, node)):
        raise EditRefused(
            f"line {line}: the service {name} is built from a Dockerfile, and its version is in there (FROM …)",
            snippet=f"# in the Dockerfile of {name}:\n{_from_lines(kind, name, snippet)}\n# in this file:\n{snippet}",
            hint="change both by hand; then build it",
        )
    if kind is None:
        _refuse_half_known(name, node, value, ref, line, env, snippet)
        return None
    if not isinstance(value, ScalarNode) or (holder is not node and holder not in look_up.here.values()):
        return None  # the image is edited in the file that has it
    return Service(name=name, kind=kind, node=node, image=value, bases=bases, extends_elsewhere=elsewhere)


def _from_lines(kind: Kind | None, name: str, snippet: str) -> str:
    wanted = kind or ("periphery" if "periphery" in name.lower() else "core")
    refs: list[str] = re.findall(r"image: (\S+)", snippet)
    return "\n".join(f"FROM {ref}" for ref in refs if komodo_kind(ref) == wanted)


def _refuse_half_known(
    name: str, node: MappingNode, value: Node | None, ref: str, line: int, env: Mapping[str, str], snippet: str
) -> None:
    if looks_like_komodo(ref):
        raise EditRefused(
            f"line {line}: the service {name} runs {ref}, which is not one of Komodo's own images "
            "(ghcr.io/moghtech/komodo-core and -periphery)",
            snippet=snippet,
            hint="if it mirrors them, change it by hand; if it is your own, build it from v2 first, or Core loses it",
        )
    if "{{" in ref and _is_komodo_like(name, node):
        raise EditRefused(
            f"line {line}: the image of {name} is filled in by another tool (a template)",
            snippet=snippet,
            hint="set Komodo's version where that tool takes it from",
        )
    repository = variables(parse(value.value).name) if isinstance(value, ScalarNode) else ()
    missing = sorted(v.name for v in repository if v.name not in env and not v.has_default)
    alike = _is_komodo_like(name, node) or any("KOMODO" in n or "PERIPHERY" in n for n in missing)
    if missing and alike and ("/" not in ref or "komodo" in ref.lower()):
        raise EditRefused(
            f"line {line}: the image of {name} is in {', '.join(missing)}, which is not set in what was given",
            snippet=snippet,
            hint="give the env file that sets it together with this file",
        )


def _is_komodo_like(name: str, node: MappingNode) -> bool:
    container = effective(node, "container_name")
    called = [name, container[2].value if container and isinstance(container[2], ScalarNode) else ""]
    return any(_NAMED.search(n) for n in called) or any(_OWN_SETTINGS.match(k) for k in environment_names(node))


def environment_names(node: MappingNode) -> set[str]:
    """The names under `environment:`, map or list."""
    found = effective(node, "environment")
    if found is None:
        return set()
    value = found[2]
    if isinstance(value, SequenceNode):
        return {i.value.partition("=")[0].strip() for i in value.value if isinstance(i, ScalarNode)}
    if isinstance(value, MappingNode):
        return {k.value for k, _ in value.value if isinstance(k, ScalarNode)}
    return set()


def owners_of(documents: Sequence[Node]) -> dict[int, frozenset[str]]:
    """Node → the services, or top-level keys other than x-…, that reach it by any way."""
    owners: dict[int, set[str]] = {}
    for document in documents:
        if not isinstance(document, MappingNode):
            continue
        for key, value in document.value:
            if key.value == "services" and isinstance(value, MappingNode):
                for name, service in value.value:
                    _note(owners, service, name.value)
            elif not str(key.value).startswith("x-"):
                _note(owners, value, f"top-level {key.value}")
    return {node: frozenset(names_) for node, names_ in owners.items()}


def _note(owners: dict[int, set[str]], node: Node, owner: str) -> None:
    for inner_node in walk(node):
        owners.setdefault(id(inner_node), set()).add(owner)
