"""Core's key in the `environment:` of an agent: PERIPHERY_CORE_PUBLIC_KEYS.

`environment:` beats `env_file:`, and an agent with a key ignores its passkeys
(v2.3.2:bin/periphery/src/connection/server.rs).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from komodo.compose.environment import Setting, merged_settings, set_value, settings
from komodo.compose.insert import add_item, add_key, in_front, prefix
from komodo.compose.interpolation import names, resolve
from komodo.compose.mounts import KEYS, keys_mount, list_indent
from komodo.compose.overrides import NO_OVERRIDES, Overrides
from komodo.compose.reference import komodo_kind, sole_variable
from komodo.compose.services import find, owners_of, services_in
from komodo.compose.yaml_nodes import (
    BY_HAND,
    MAP,
    MERGE,
    Changes,
    effective,
    is_flow,
    is_null,
    load,
    prove,
    scalar,
    tree,
)
from komodo.files.detect import refuse_unreadable
from komodo.files.env import pin_reason
from komodo.files.splice import Edited, Splice, apply, lines_after, newline_of
from komodo.public_key import pinnable, with_key
from model.errors import EditRefused

NAME = "PERIPHERY_CORE_PUBLIC_KEYS"
ALIAS = "PERIPHERY_CORE_PUBLIC_KEY"
CORE_FILE = f"file:{KEYS}/core.pub"
"""Core writes its public key there. An agent that mounts the same folder reads it (official files since v2.0.0)."""


class SetElsewhere(EditRefused):
    """The agent's pin is a variable of an env file."""

    variable = ""
    fills = False
    """It fills in `${…}`. False: the service gets it by `env_file:`."""


def pin_agent_key(
    text: str,
    *,
    service: str,
    key: str,
    env: Mapping[str, str] | None = None,
    given: Mapping[str, str] | None = None,
    overrides: Overrides = NO_OVERRIDES,
) -> Edited:
    """Pin Core's key (or a plan's placeholder) in a service. `env` fills in `${…}`, `given` comes from `env_file:`.

    `overrides`: the same service in the project's other files.

    Raises KeyRejected for a key that is not one, SetElsewhere where an env file holds the pin, EditRefused with the
    lines to paste where the file is not understood.
    """
    known = dict(env or {})
    key = key if key == CORE_FILE else pinnable(key)
    snippet = f'services:\n  {service}:\n    environment:\n      {NAME}: "{key}"'
    refuse_unreadable(text, snippet=snippet)
    documents = load(text, snippet=snippet)
    node = next((v for d in documents for k, v in services_in(d) if k.value == service), None)
    if node is None:
        raise EditRefused(f"this file has no service {service}", snippet=snippet)
    changes = Changes()
    same = (CORE_FILE,) if shares_core_keys(documents, text, service, known) else ()
    try:
        _refuse_alias(node, service, overrides)
        _refuse_later(service, overrides)
        _plan(text, documents, node, service, _Pin(key=key, same=same, env=known), given or {}, changes)
        result = apply(text, changes.splices)
        prove(text, result, documents, changes, snippet)
    except EditRefused as error:
        error.snippet, error.hint = error.snippet or snippet, error.hint or BY_HAND
        raise
    return Edited(text=result, reasons=tuple(changes.reasons))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pin:
    key: str
    same: tuple[str, ...]
    """Entries that mean the same key."""
    env: Mapping[str, str]


def shares_core_keys(documents: Sequence[Node], text: str, service: str, env: Mapping[str, str]) -> bool:
    """Whether the agent mounts the folder in which Core of the same file keeps its keys."""
    found = find(documents, text, env, "")
    agent = next((s for s in found.agents if s.name == service), None)
    if found.core is None or agent is None:
        return False
    theirs, ours = keys_mount(found.core, env), keys_mount(agent, env)
    if theirs is None or ours is None or ours.target != KEYS or not ours.keeps:
        return False
    return (theirs.source, theirs.target) == (ours.source, KEYS)


def _refuse_alias(node: MappingNode, service: str, overrides: Overrides) -> None:
    """The other name, from a `<<` or an earlier file: v2 stops when it gets both."""
    found = [setting for earlier in overrides.earlier for setting in settings(earlier)]
    for owner in (node, *overrides.earlier):
        environment = effective(owner, "environment")
        found += merged_settings(environment[2]) if environment else ()
    if any(setting.name.upper() == ALIAS for setting in found):
        raise EditRefused(
            f"{service} gets {ALIAS} by a `<<` or from another file: v2 stops when it also gets {NAME}",
            hint=f"rename it to {NAME} there, then try again",
        )


def _refuse_later(service: str, overrides: Overrides) -> None:
    overrides.refuse_replaced(service, "environment")
    for path, later in overrides.later:
        for setting in settings(later):
            if setting.name.upper() in (NAME, ALIAS):
                raise EditRefused(
                    f"{path} sets {setting.name} of {service} too, which takes precedence over this file",
                    hint=f"remove {setting.name} from {path}, then try again",
                )


def _plan(
    text: str,
    documents: list[Node],
    node: MappingNode,
    service: str,
    pin: _Pin,
    given: Mapping[str, str],
    changes: Changes,
) -> None:
    present = [s for s in settings(node) if s.name.upper() in (NAME, ALIAS)]
    from_file = {k: v for k, v in given.items() if k.upper() in (NAME, ALIAS) and effective(node, "env_file")}
    if len({s.name.upper() for s in present} | {k.upper() for k in from_file}) > 1:
        raise EditRefused(
            f"{service} gets both {NAME} and {ALIAS}: two names of one setting, and v2 stops when it gets both",
            hint=f"keep {NAME} only, then try again",
        )
    if present:
        _replace(text, documents, service, present[0], pin, changes)
    elif from_file:
        name, value = next(iter(from_file.items()))
        if with_key(value, pin.key, pin.same) is not None:
            raise _elsewhere(f"{service} gets {name} from an env file", name, pin.key, fills=False)
    else:
        if not _merge_alias(text, documents, node, service, pin.key, changes):
            _refuse_shared(documents, node, service)
            _add(text, documents, node, pin.key, changes)
        changes.reasons.append(f"{service}: {NAME} pinned: the agent accepts only the Core with this key")


def _elsewhere(what: str, name: str, key: str, *, fills: bool) -> SetElsewhere:
    error = SetElsewhere(
        f"{what}, which was not given",
        snippet=f"{name}={key}",
        hint=f"give the env file that sets {name} together with this file; add the line there if it is missing",
    )
    error.variable, error.fills = name, fills
    return error


def _replace(text: str, documents: list[Node], service: str, setting: Setting, pin: _Pin, changes: Changes) -> None:
    old = resolve(setting.value, pin.env)
    new = with_key(old, pin.key, pin.same)
    if new is None:
        return
    variable = sole_variable(setting.value)
    if variable is not None:
        raise _elsewhere(f"{setting.name} of {service} is ${{{variable.name}}}", variable.name, pin.key, fills=True)
    if names(setting.value):
        new = f"{setting.value},{pin.key}"
        if with_key(resolve(new, pin.env), pin.key, pin.same) is not None:
            raise EditRefused(f"{setting.name} of {service} is made of variables, and not all that they hold is a key")
    if owners_of(documents).get(id(setting.node), frozenset()) - _komodo(documents, service):
        raise EditRefused(f"the environment of {service} is shared with other services by an anchor")
    if not set_value(text, setting, setting.name, new, changes):
        raise EditRefused(f"the value of {setting.name} in {service} is not written on one line")
    changes.reasons.append(f"{service}: {setting.name}: {pin_reason(old, resolve(new, pin.env))}")


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


def _merge_alias(text: str, documents: list[Node], node: MappingNode, service: str, key: str, changes: Changes) -> bool:
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
            raise EditRefused("the environment is not on lines of its own")
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
