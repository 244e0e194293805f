"""The keys mount of a Komodo service: v2 keeps its key pair in /config/keys and makes a new one if there is none.

v2.3.2:compose/mongo.compose.yaml; upgrade guide, "Upgrade Core". Without a mount each re-created Core has another key,
and every agent that pinned the old one refuses it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from komodo.compose.interpolation import resolve, variables
from komodo.compose.services import Service
from komodo.compose.yaml_nodes import SEQ, effective, pair

KEYS = "/config/keys"
_SHORT = re.compile(r"^(?:(?P<source>.+?):)?(?P<target>/[^:]*)(?::(?P<options>[A-Za-z,=_-]+))?$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Mount:
    """One entry of `volumes:`, variables filled in."""

    source: str
    """A variable without a value stays in it: "${DATA}/keys"."""
    target: str
    read_only: bool = False
    type: str = ""
    """bind | volume | tmpfs | … where the long form says so."""

    @property
    def keeps(self) -> bool:
        """Whether what is written there survives the container."""
        return self.type in ("", "bind", "volume") and bool(self.source)

    @property
    def named(self) -> bool:
        """A named volume rather than a folder of the host."""
        return self.type == "volume" or (not self.type and not re.match(r"[./~$\\]|[A-Za-z]:[\\/]", self.source))

    @property
    def known(self) -> bool:
        """Whether the files say where it is. `~` and unset variables depend on the shell that starts Compose."""
        return "$" not in self.source and not self.source.startswith("~")


def mounts(values: Sequence[Node], env: Mapping[str, str]) -> Iterator[Mount]:
    """Every entry that can be read. A target that contains an unset variable cannot."""
    for value in values:
        items = value.value if isinstance(value, SequenceNode) else []
        for item in items:
            found = _mount(item, env)
            if found is not None:
                yield found


def _mount(item: Node, env: Mapping[str, str]) -> Mount | None:
    if isinstance(item, ScalarNode):
        found = _SHORT.match(_filled(item.value, env))
        if found is None or "$" in found["target"]:
            return None
        options = (found["options"] or "").split(",")
        return Mount(source=found["source"] or "", target=_plain(found["target"]), read_only="ro" in options)
    if isinstance(item, MappingNode):
        target = _text(item, "target", env)
        if not target or "$" in target:
            return None
        return Mount(
            source=_text(item, "source", env),
            target=_plain(target),
            read_only=_text(item, "read_only", env).lower() == "true",
            type=_text(item, "type", env),
        )
    return None


def _filled(text: str, env: Mapping[str, str]) -> str:
    """Variables filled in; one without a value stays as `${NAME}`, so that it is not taken for nothing."""
    unset = {v.name: f"${{{v.name}}}" for v in variables(text) if v.operator in ("", ":?", "?") and v.name not in env}
    return resolve(text, {**env, **unset})


def _text(item: MappingNode, key: str, env: Mapping[str, str]) -> str:
    found = effective(item, key)
    return _filled(found[2].value, env) if found and isinstance(found[2], ScalarNode) else ""


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
