"""Core's key in the `environment:` of the agent beside Core: PERIPHERY_CORE_PUBLIC_KEYS.

`environment:` beats `env_file:`, and an agent with a key ignores its passkeys
(v2.3.2:bin/periphery/src/connection/server.rs).
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from komodo.compose_beside import NOTHING, Beside
from komodo.compose_environment import Setting, merged_settings, set_value, settings
from komodo.compose_insert import add_item, add_key, in_front, prefix
from komodo.compose_mounts import list_indent
from komodo.compose_prove import BY_HAND, prove
from komodo.compose_services import owners_of, services_in
from komodo.compose_text import MAP, MERGE, Changes, effective, is_flow, is_null, load, scalar, tree
from komodo.edited import Edited
from komodo.image import komodo_kind
from komodo.interpolation import resolve
from komodo.public_key import pinnable
from komodo.recognise import refuse_unreadable
from komodo.splice import Splice, apply, lines_after, newline_of
from model.errors import EditRefused

NAME = "PERIPHERY_CORE_PUBLIC_KEYS"
ALIAS = "PERIPHERY_CORE_PUBLIC_KEY"


def pin_agent_key(
    text: str,
    *,
    service: str,
    key: str,
    env: Mapping[str, str] | None = None,
    beside: Beside = NOTHING,
) -> Edited:
    """Pin Core's key (or a plan's placeholder) in a service. `env` holds the values of the service's env file.

    `beside`: the same service in the project's other files.

    Raises KeyRejected for a key that is none, EditRefused with the lines to paste where the file is not understood.
    """
    key = pinnable(key)
    known = dict(env or {})
    snippet = f'services:\n  {service}:\n    environment:\n      {NAME}: "{key}"'
    refuse_unreadable(text, snippet=snippet)
    documents = load(text, snippet=snippet)
    node = next((v for d in documents for k, v in services_in(d) if k.value == service), None)
    if node is None:
        raise EditRefused(f"this file has no service {service}", snippet=snippet)
    changes = Changes()
    try:
        _refuse_alias(node, service, beside)
        _refuse_later(service, beside)
        _plan(text, documents, node, service, key, known, changes)
        result = apply(text, changes.splices)
        prove(text, result, documents, changes, snippet)
    except EditRefused as error:
        error.snippet, error.cure = error.snippet or snippet, error.cure or BY_HAND
        raise
    return Edited(text=result, reasons=tuple(changes.reasons))


def _refuse_alias(node: MappingNode, service: str, beside: Beside) -> None:
    """The other name, where it comes from a `<<` or an earlier file: beside the one that is written here v2 stops."""
    found = [setting for earlier in beside.earlier for setting in settings(earlier)]
    for owner in (node, *beside.earlier):
        environment = effective(owner, "environment")
        found += merged_settings(environment[2]) if environment else ()
    if any(setting.name.upper() == ALIAS for setting in found):
        raise EditRefused(
            f"{service} gets {ALIAS} by a `<<` or from another file: with {NAME} beside it v2 stops",
            cure=f"rename it to {NAME} there, then try again",
        )


def _refuse_later(service: str, beside: Beside) -> None:
    beside.refuse_replaced(service, "environment")
    for path, later in beside.later:
        for setting in settings(later):
            if setting.name.upper() in (NAME, ALIAS):
                raise EditRefused(
                    f"{path} sets {setting.name} of {service} too, and counts more than this file",
                    cure=f"remove {setting.name} from {path}, then try again",
                )


def _plan(
    text: str,
    documents: list[Node],
    node: MappingNode,
    service: str,
    key: str,
    env: Mapping[str, str],
    changes: Changes,
) -> None:
    present = [s for s in settings(node) if s.name.upper() in (NAME, ALIAS)]
    from_file = {k: v for k, v in env.items() if k.upper() in (NAME, ALIAS) and effective(node, "env_file")}
    if len({s.name.upper() for s in present} | {k.upper() for k in from_file}) > 1:
        raise EditRefused(
            f"{service} gets both {NAME} and {ALIAS}: two names of one setting, and v2 stops when it gets both",
            cure=f"keep {NAME} only, then try again",
        )
    if not present and from_file:
        name, value = next(iter(from_file.items()))
        if key in _entries(value):
            return
        if value.strip() or name.upper() == ALIAS:
            raise EditRefused(f"the env file of {service} sets {name} to something else", snippet=f"{name}={key}")
    if present:
        _replace(text, documents, service, present[0], key, env, changes)
    else:
        if not _beside_alias(text, documents, node, service, key, changes):
            _refuse_shared(documents, node, service)
            _add(text, documents, node, key, changes)
        changes.reasons.append(f"{service}: {NAME} pinned: the agent accepts only the Core with this key")


def _entries(value: str) -> list[str]:
    # not trimmed by v2: " MCow…" is "not base64" to it, so an entry with blanks around it is no pin
    return value.split(",")


def _replace(
    text: str,
    documents: list[Node],
    service: str,
    setting: Setting,
    key: str,
    env: Mapping[str, str],
    changes: Changes,
) -> None:
    value = resolve(setting.value, env)
    if key in _entries(value):
        return
    if owners_of(documents).get(id(setting.node), frozenset()) - _komodo(documents, service):
        raise EditRefused(f"the environment of {service} is shared with other services by an anchor")
    if not set_value(text, setting, setting.name, key, changes):
        raise EditRefused(f"the value of {setting.name} in {service} is not written on one line")
    was = "was empty, which lets any Core in" if not value.strip() else "held another value"
    changes.reasons.append(f"{service}: {setting.name} set to Core's key: it {was}")


def _komodo(documents: list[Node], service: str) -> frozenset[str]:
    found = {service}
    for document in documents:
        for key, node in services_in(document):
            image = effective(node, "image")
            if image and isinstance(image[2], ScalarNode) and komodo_kind(resolve(image[2].value, {})):
                found.add(key.value)
    return frozenset(found)


def _refuse_shared(documents: list[Node], node: MappingNode, service: str) -> None:
    found = effective(node, "environment")
    grows = found[2] if found else node
    if owners_of(documents).get(id(grows), frozenset()) - _komodo(documents, service):
        raise EditRefused(f"the environment of {service} is shared with other services by an anchor")


def _beside_alias(
    text: str, documents: list[Node], node: MappingNode, service: str, key: str, changes: Changes
) -> bool:
    """`environment: *shared`, which other services have too, becomes a map that brings it in and adds the key."""
    found = effective(node, "environment")
    if found is None or found[0] is not node or not isinstance(found[2], MappingNode):
        return False
    name, value = found[1], found[2]
    if not owners_of(documents).get(id(value), frozenset()) - _komodo(documents, service):
        return False
    alias = re.compile(r":[ \t]+(\*[^\s,\]}]+)").match(text, name.end_mark.index)
    indent = prefix(text, name.start_mark.index)
    if alias is None or indent.strip(" "):
        return False
    newline = newline_of(text, alias.start())
    lines = [f"{indent}  <<: {alias[1]}", f'{indent}  {NAME}: "{key}"']
    place = Splice(start=alias.start() + 1, end=alias.end(), text="".join(newline + line for line in lines))
    changes.splices.append(place)
    changes.removed.add(id(name))
    merged = [(scalar("<<", MERGE), tree(value)), (scalar(NAME), scalar(key))]
    changes.added[id(node)] = [("environment", ("map", MAP, tuple(sorted(merged, key=repr))))]
    return True


def _add(text: str, documents: list[Node], node: MappingNode, key: str, changes: Changes) -> None:
    found = effective(node, "environment")
    line, flow = f'{NAME}: "{key}"', f'environment: {{{NAME}: "{key}"}}'
    pair = (scalar(NAME), scalar(key))
    if found is None or (is_null(found[2]) and found[0] is not node):
        add_key(text, node, "environment", ("map", MAP, (pair,)), ["environment:", f"  {line}"], flow, changes)
        return
    name, value = found[1], found[2]
    if is_null(value):
        indent = prefix(text, name.start_mark.index)
        changes.splices.append(lines_after(text, name.start_mark.index, [f"{indent}  {line}"]))
        changes.scalars[id(value)] = ("map", MAP, (pair,))
    elif isinstance(value, SequenceNode):
        _add_to_list(text, documents, node, name, value, key, changes)
    elif isinstance(value, MappingNode) and is_flow(value):
        at = text.index("{", value.start_mark.index) + 1
        changes.splices.append(Splice(start=at, end=at, text=line + (", " if value.value else "")))
        changes.added[id(value)] = [(NAME, scalar(key))]
    elif isinstance(value, MappingNode):
        indent = prefix(text, value.value[0][0].start_mark.index)
        if indent.strip(" "):
            raise EditRefused("the environment does not stand on lines of its own")
        changes.splices.append(in_front(text, name, value.value[0][0], f"{indent}{line}"))
        changes.added[id(value)] = [(NAME, scalar(key))]
    else:
        raise EditRefused("the environment is neither a map nor a list")


def _add_to_list(
    text: str, documents: list[Node], node: MappingNode, name: Node, value: SequenceNode, key: str, changes: Changes
) -> None:
    quoted = f"{NAME}={key}"
    if is_flow(value):
        add_item(text, name, value, quoted, 0, changes)
        return
    add_item(text, name, value, f'"{quoted}"', list_indent(documents, node), changes)
    changes.first_items[id(value)] = [scalar(quoted)]
