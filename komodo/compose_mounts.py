"""The keys mount of a Komodo service: v2 keeps its key pair in /config/keys and makes a new one where it finds none.

v2.3.2:compose/mongo.compose.yaml; upgrade guide, "Upgrade Core". Without a mount every re-created Core has another key,
and every agent that was pinned to the old one is lost.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from komodo.compose_services import Service
from komodo.compose_text import SEQ, effective, pair
from komodo.interpolation import resolve, variables

KEYS = "/config/keys"
_SHORT = re.compile(r"^(?:(?P<source>.+?):)?(?P<target>/[^:]*)(?::(?P<options>[A-Za-z,=_-]+))?$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Mount:
    """One entry of `volumes:`, variables filled in."""

    source: str
    target: str
    read_only: bool = False
    type: str = ""
    """bind | volume | tmpfs | … where the long form says so."""
    unset: str = ""
    """A variable in its source that has no value here: the shell that starts Compose would have to set it."""

    @property
    def keeps(self) -> bool:
        """Whether what is written there outlives the container."""
        return self.type in ("", "bind", "volume") and bool(self.source)

    @property
    def named(self) -> bool:
        """A named volume rather than a folder of the host."""
        return self.type == "volume" or (not self.type and not re.match(r"[./~\\]|[A-Za-z]:[\\/]", self.source))


def mounts(values: Sequence[Node], env: Mapping[str, str]) -> Iterator[Mount]:
    """Every entry that can be read; what cannot be read is no keys mount."""
    for value in values:
        items = value.value if isinstance(value, SequenceNode) else []
        for item in items:
            found = _mount(item, env)
            if found is not None:
                yield found


def _mount(item: Node, env: Mapping[str, str]) -> Mount | None:
    if isinstance(item, ScalarNode):
        found = _SHORT.match(resolve(item.value, env))
        if found is None:
            return None
        options = (found["options"] or "").split(",")
        return Mount(
            source=found["source"] or "", target=_plain(found["target"]), read_only="ro" in options,
            unset=_unset(item.value, env),
        )  # fmt: skip
    if isinstance(item, MappingNode):
        target, source = effective(item, "target"), effective(item, "source")
        if target is None or not isinstance(target[2], ScalarNode):
            return None
        return Mount(
            source=_text(item, "source", env),
            target=_plain(resolve(target[2].value, env)),
            read_only=_text(item, "read_only", env).lower() == "true",
            type=_text(item, "type", env),
            unset=_unset(source[2].value, env) if source and isinstance(source[2], ScalarNode) else "",
        )
    return None


def _unset(text: str, env: Mapping[str, str]) -> str:
    return next((v.name for v in variables(text) if not v.operator and v.name not in env), "")


def _text(item: MappingNode, key: str, env: Mapping[str, str]) -> str:
    found = effective(item, key)
    return resolve(found[2].value, env) if found and isinstance(found[2], ScalarNode) else ""


def _plain(path: str) -> str:
    return path.rstrip("/") or "/"


def keys_mount(service: Service, env: Mapping[str, str]) -> Mount | None:
    """The mount that already holds /config/keys, or a folder above it; the nearest one."""
    found = [
        m
        for m in mounts(service.everywhere("volumes"), env)
        if m.target == KEYS or (m.keeps and KEYS.startswith(m.target.rstrip("/") + "/"))
    ]
    return max(found, key=lambda m: len(m.target), default=None)


def users_of(source: str, services: Sequence[MappingNode], env: Mapping[str, str]) -> bool:
    """Whether one of these services mounts the source."""
    for node in services:
        found = effective(node, "volumes")
        if found is not None and any(m.source.rstrip("/") == source for m in mounts([found[2]], env)):
            return True
    return False


def declared(documents: Sequence[Node], name: str) -> bool:
    """Whether a named volume is declared at the top."""
    return any(pair(found[1], name) is not None for d in documents if (found := pair(d, "volumes")) is not None)


def list_indent(documents: Sequence[Node], service: MappingNode) -> int:
    """Columns from a key to the dashes below it, as this service, else this file, writes lists; else 2."""
    for node in (service, *_service_nodes(documents)):
        for key, value in node.value:
            if isinstance(value, SequenceNode) and not value.flow_style and value.value and value.tag == SEQ:
                indent = int(value.start_mark.column) - int(key.start_mark.column)
                if 0 <= indent <= 8 and value.start_mark.line > key.start_mark.line:
                    return indent
    return 2


def _service_nodes(documents: Sequence[Node]) -> Iterator[MappingNode]:
    for document in documents:
        found = pair(document, "services")
        if found is not None and isinstance(found[1], MappingNode):
            yield from (v for _, v in found[1].value if isinstance(v, MappingNode))
