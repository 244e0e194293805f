"""The `environment:` of a service, map or list: read, set, comment out, and refuse pairs that stop v2."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from komodo.compose.interpolation import names
from komodo.compose.reference import Kind
from komodo.compose.services import Found, Service
from komodo.compose.yaml_nodes import Changes, effective, is_flow, is_null, merged_from, scalar
from komodo.files.env import FIRST_SERVER
from komodo.files.splice import Splice, line_end, line_number, line_start
from model.errors import EditRefused

ALIAS_PAIRS: Mapping[Kind, tuple[tuple[str, str], ...]] = {
    "core": (("TZ", "KOMODO_TIMEZONE"),),
    "periphery": (
        ("PERIPHERY_DISABLE_CONTAINER_EXEC", "PERIPHERY_DISABLE_CONTAINER_TERMINALS"),
        ("PERIPHERY_CORE_PUBLIC_KEY", "PERIPHERY_CORE_PUBLIC_KEYS"),
    ),
}
"""Two names of one setting: v2 stops at start with "duplicate field" when it gets both
(v2.3.2:client/core/rs/src/entities/config/core.rs and periphery.rs, `serde(alias)`)."""

CONFIG_PATH = "PERIPHERY_CONFIG_PATH"
"""The v2 image sets PERIPHERY_CONFIG_PATHS, this one's other name (v2.3.2:bin/periphery/single-arch.Dockerfile)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One entry of `environment:`."""

    name: str
    value: str
    key: Node
    """What is removed with the entry: the key of a map, the item of a list."""
    node: Node
    """What holds the value."""
    container: Node


def settings(node: MappingNode) -> Iterator[Setting]:
    """The service's own entries, without those that `<<` inside of them brings in."""
    found = effective(node, "environment")
    if found is not None:
        yield from _settings(found[2])


def merged_settings(value: Node) -> Iterator[Setting]:
    """Entries that `<<` inside of `environment:` brings in and that are not overwritten there."""
    own = {s.name for s in _settings(value)}
    for merged in merged_from(value) if isinstance(value, MappingNode) else ():
        for setting in (*_settings(merged), *merged_settings(merged)):
            if setting.name not in own:
                own.add(setting.name)
                yield setting


def _settings(value: Node) -> Iterator[Setting]:
    if isinstance(value, SequenceNode):
        for item in value.value:
            if isinstance(item, ScalarNode):
                name, _, text = item.value.partition("=")
                yield Setting(name=name.strip(), value=text, key=item, node=item, container=value)
    elif isinstance(value, MappingNode):
        for key, child in value.value:
            if isinstance(key, ScalarNode) and isinstance(child, ScalarNode):
                yield Setting(name=key.value, value=child.value, key=key, node=child, container=value)


def refuse_alias_pairs(service: Service, env: Mapping[str, str]) -> None:
    """Raise EditRefused where v2 would not start: two names of one setting in what the container gets.

    `env`: what its `env_file:` holds, if it has one.
    """
    given = {s.name for s in settings(service.node)}
    for value in service.everywhere("environment"):
        given |= {s.name for s in (*_settings(value), *merged_settings(value))}
    if service.everywhere("env_file"):
        given |= set(env)
    for first, second in ALIAS_PAIRS[service.kind]:
        if {first, second} <= given:
            raise EditRefused(
                f"{service.name} gets both {first} and {second}: they are two names of one setting, "
                "and v2 does not start when it gets both",
                snippet=f"# remove this one:\n{second}\n# keep this one:\n{first}",
                hint=f"keep {first} only, then try again",
            )
    if service.kind == "periphery" and CONFIG_PATH in given:
        raise EditRefused(
            f"{service.name} gets {CONFIG_PATH}: the v2 image sets {CONFIG_PATH}S, and stops when it gets both",
            snippet=f"# instead of {CONFIG_PATH}:\nPERIPHERY_CONFIG_PATHS=…",
            hint="rename it to PERIPHERY_CONFIG_PATHS (v1.19 knows both names), then try again",
        )


def comment_first_server(text: str, found: Found, service: Service, changes: Changes, notes: list[str]) -> None:
    """Comment out KOMODO_FIRST_SERVER* in the service's own environment, or note why it stays (one harmless error)."""
    every = list(settings(service.node))
    _note_merged(service, notes)
    going = [s for s in every if s.name.upper() in FIRST_SERVER]
    if not going or any(id(s.key) in changes.removed for s in going):
        return
    container = going[0].container
    users = [s.name for s in every for n in names(s.value) if n in FIRST_SERVER and s not in going]
    blocked = (
        f"{users[0]} is made from it" if users
        else "it is shared with other services" if not found.private(container)
        else "it is written with brackets" if is_flow(container)
        else "it is the only entry at an anchor" if len(going) == len(container.value) and _aliased(service)
        else "its value spans several lines" if any(not _one_line(text, s) for s in going)
        else ""
    )  # fmt: skip
    if blocked:
        notes.append(
            f"{service.name}: {going[0].name} stays, because {blocked}; v2 logs one error about it at its first start"
        )
        return
    for setting in going:
        at = line_start(text, setting.key.start_mark.index)
        at += len(text[at:]) - len(text[at:].lstrip(" \t"))
        changes.splices.append(Splice(start=at, end=at, text="# "))
        changes.removed.add(id(setting.key))
        changes.reasons.append(
            f"{service.name}: {setting.name} commented out (line {line_number(text, at)}): v2 would try to make it"
        )
    if len(going) == len(container.value):
        _comment_key(service, changes)


def _note_merged(service: Service, notes: list[str]) -> None:
    """Note entries that are not the service's own. They are left alone, because others may use them."""
    own = effective(service.node, "environment")
    for value in service.everywhere("environment"):
        found = [(s, "`<<`") for s in merged_settings(value)]
        if own is None or value is not own[2]:
            found += [(s, "another service or file") for s in _settings(value)]
        notes += [
            f"{service.name}: {s.name} stays, because {by} brings it in; v2 logs one error about it at its first start"
            for s, by in found
            if s.name.upper() in FIRST_SERVER
        ]


def _aliased(service: Service) -> bool:
    """`environment: *name`: its entries are somewhere else."""
    own = effective(service.node, "environment")
    return own is not None and own[2].start_mark.index < own[1].end_mark.index


def _comment_key(service: Service, changes: Changes) -> None:
    own = effective(service.node, "environment")
    if own is not None:
        at = own[1].start_mark.index
        changes.splices.append(Splice(start=at, end=at, text="# "))
        changes.removed.add(id(own[1]))


def _one_line(text: str, setting: Setting) -> bool:
    start = line_start(text, setting.key.start_mark.index)
    end = line_end(text, setting.key.start_mark.index)
    before = text[start : setting.key.start_mark.index]
    ends = setting.key.end_mark.index if is_null(setting.node) else setting.node.end_mark.index
    return bool(re.fullmatch(r"[ \t]*(?:-[ \t]+)?", before)) and ends <= end


def set_value(text: str, setting: Setting, name: str, value: str, changes: Changes) -> bool:
    """Replace the value of an entry on its line. False where it is not written on one line.

    The value is always quoted: a plan's placeholder begins with a brace, which would be a mapping without quotes.
    """
    item = setting.key is setting.node
    new = f"{name}={value}" if item else value
    if is_null(setting.node):
        start = end = text.index(":", setting.key.end_mark.index) + 1
        written = f' "{new}"'
    else:
        start, end = setting.node.start_mark.index, setting.node.end_mark.index
        written = f'"{new}"'
    if "\n" in text[start:end] or text[start : start + 1] in ("&", "!"):
        return False
    changes.splices.append(Splice(start=start, end=end, text=written))
    changes.scalars[id(setting.node)] = scalar(new)
    return True
