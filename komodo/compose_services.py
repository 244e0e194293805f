"""Which services of a compose file are Komodo's, and whom a node belongs to."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from komodo.compose_beside import NOTHING, Beside
from komodo.compose_text import effective, pair, walk
from komodo.image import Kind, komodo_kind, looks_like_komodo
from komodo.interpolation import names, resolve
from komodo.splice import line_number
from model.errors import EditRefused

NOTHING_HERE = "no service in this file runs one of Komodo's images"

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
    """What it `extends` inside the same file, the nearest first."""
    extends_elsewhere: bool = False
    """It extends a service of another file, which nobody sees here."""
    beside: Beside = NOTHING
    """The same service in the project's other files."""

    def own(self, key: str) -> tuple[MappingNode, ScalarNode, Node] | None:
        """A key of the service with `<<`, not what it extends."""
        return effective(self.node, key)

    def inherited(self, key: str) -> Node | None:
        """The value of a key in what it extends, else in the files before this one."""
        return next(iter(self.all_inherited(key)), None)

    def all_inherited(self, key: str) -> tuple[Node, ...]:
        """All of these, the nearest first: Compose joins lists and maps."""
        found = (effective(base, key) for base in (*self.bases, *self.beside.earlier))
        return tuple(f[2] for f in found if f is not None)

    def everywhere(self, key: str) -> tuple[Node, ...]:
        """The values of a key in all files, what counts most first."""
        own = self.own(key)
        return (*self.beside.all_later(key), *((own[2],) if own else ()), *self.all_inherited(key))


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """Komodo's services of a file, and the owners of every node."""

    core: Service | None
    agent: Service | None
    owners: Mapping[int, frozenset[str]]
    """Node → the services (or top-level keys) that reach it."""
    others: tuple[MappingNode, ...]
    """Services that are not Komodo's."""

    @property
    def services(self) -> tuple[Service, ...]:
        """Core first."""
        return tuple(s for s in (self.core, self.agent) if s is not None)

    def private(self, node: Node) -> bool:
        """Whether only Komodo's services see this node, so that a change to it reaches nothing else."""
        return self.owners.get(id(node), frozenset()) <= {s.name for s in self.services}


def find(
    documents: Sequence[Node],
    text: str,
    env: Mapping[str, str],
    snippet: str,
    others: Mapping[str, Beside] | None = None,
) -> Found:
    """Komodo's services, by image. Raises EditRefused where there is none, more than one of a kind, or a built one."""
    every = [(key.value, value) for d in documents for key, value in services_in(d)]
    komodo: list[Service] = []
    foreign: list[MappingNode] = []
    for name, node in every:
        service = _komodo_service(name, node, dict(every), text, env, snippet)
        if service is None:
            foreign.append(node)
        else:
            komodo.append(replace(service, beside=(others or {}).get(name, NOTHING)))
    if not komodo:
        raise EditRefused(_nothing(text), snippet=snippet, cure="give the compose file whose services run Komodo")
    return Found(
        core=_one("core", komodo, snippet),
        agent=_one("periphery", komodo, snippet),
        owners=owners_of(documents),
        others=tuple(foreign),
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


def env_files(documents: Sequence[Node], service: str) -> tuple[str, ...]:
    """What `env_file:` of a service, and of what it extends in this file, names: a string, a list, a list of maps.

    A file in `format: raw` is left out: it is no env file in the usual form.
    """
    every = {key.value: node for document in documents for key, node in services_in(document)}
    if service not in every:
        return ()
    bases, _ = _bases(every[service], every)
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


def _nothing(text: str) -> str:
    for number, line in enumerate(text.splitlines(), 1):
        if re.search(r"#.*(?:moghtech/komodo-(?:core|periphery)|mbecker20/(?:komodo|periphery))", line):
            return f"Komodo's services are commented out in this file (line {number}): nothing of Komodo runs from it"
    return NOTHING_HERE


def _one(kind: Kind, services: Sequence[Service], snippet: str) -> Service | None:
    found = [s for s in services if s.kind == kind]
    if len(found) > 1:
        raise EditRefused(
            f"{len(found)} services run Komodo's {kind} image ({', '.join(s.name for s in found)}): "
            "which of them belong together is not written in the file",
            snippet=snippet,
            cure="make these changes in each of them by hand",
        )
    return found[0] if found else None


def _komodo_service(
    name: str, node: MappingNode, every: Mapping[str, MappingNode], text: str, env: Mapping[str, str], snippet: str
) -> Service | None:
    bases, elsewhere = _bases(node, every)
    image = effective(node, "image") or next((f for b in bases if (f := effective(b, "image"))), None)
    built = effective(node, "build") or next((f for b in bases if (f := effective(b, "build"))), None)
    value = image[2] if image else None
    ref = resolve(value.value, env) if isinstance(value, ScalarNode) else ""
    kind = komodo_kind(ref) or (komodo_kind(value.value) if isinstance(value, ScalarNode) else None)
    line = line_number(text, node.start_mark.index)
    if built and (kind or looks_like_komodo(ref) or _is_komodo_like(name, node)):
        raise EditRefused(
            f"line {line}: the service {name} is built from a Dockerfile, and its version is in there (FROM …)",
            snippet=f"# in the Dockerfile of {name}:\n{_from_lines(kind, name, snippet)}\n# in this file:\n{snippet}",
            cure="change both by hand; then build it",
        )
    if kind is None:
        _refuse_half_known(name, node, value, ref, line, env, snippet)
        return None
    if not isinstance(value, ScalarNode):  # pragma: no cover - a kind comes from a scalar only
        return None
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
            cure="if it mirrors them, change it by hand; if it is a build of your own, build it from v2 first",
        )
    missing = sorted(names(value.value) - set(env)) if isinstance(value, ScalarNode) else []
    alike = _is_komodo_like(name, node) or any("KOMODO" in n or "PERIPHERY" in n for n in missing)
    if missing and alike and ("/" not in ref or "komodo" in ref.lower()):
        raise EditRefused(
            f"line {line}: the image of {name} is in {', '.join(missing)}, which is not set in what was given",
            snippet=snippet,
            cure="give the env file that sets it together with this file",
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


def _bases(node: MappingNode, every: Mapping[str, MappingNode]) -> tuple[tuple[MappingNode, ...], bool]:
    bases: list[MappingNode] = []
    current: MappingNode | None = node
    while current is not None and len(bases) < 20:
        found = effective(current, "extends")
        if found is None:
            return tuple(bases), False
        value = found[2]
        name = pair(value, "service") if isinstance(value, MappingNode) else None
        if pair(value, "file") is not None:
            return tuple(bases), True
        wanted = name[1].value if name else value.value
        current = every.get(wanted) if isinstance(wanted, str) else None
        if current is None:
            return tuple(bases), True
        bases.append(current)
    return tuple(bases), True


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
