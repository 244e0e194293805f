"""compose.yaml: Core and the agents in its file, brought to a version as the upgrade guide says.

Upgrade guide, "Upgrade Core" and "Upgrade Periphery: Container": the image's tag, `init: true`, the keys mount. The
edits are made on the text; then both texts are read and compared as data, so that what changed is what was planned.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from ruamel.yaml.nodes import Node, ScalarNode

from komodo.compose.environment import comment_first_server, refuse_alias_pairs
from komodo.compose.image import ImagePlan, plan_image
from komodo.compose.insert import add_item, add_key, declare_volume
from komodo.compose.interpolation import names, resolve
from komodo.compose.key_pair import refuse_lost_key, refuse_new_pair
from komodo.compose.mounts import KEYS, Mount, declared, keys_mount, list_indent, mounts, users_of
from komodo.compose.notes import notes_of
from komodo.compose.overrides import Overrides
from komodo.compose.reference import EXACT, NEW_NAMES
from komodo.compose.services import Found, Service, find
from komodo.compose.yaml_nodes import (
    BOOL,
    BY_HAND,
    NULL,
    SEQ,
    STRING,
    Changes,
    effective,
    inner,
    is_null,
    load,
    prove,
    scalar,
    walk,
)
from komodo.files.detect import refuse_unreadable
from komodo.files.splice import Splice, apply
from model.errors import EditRefused

_TRUE = ("true", "yes", "on", "y")


@dataclass(frozen=True, slots=True, kw_only=True)
class ComposeEdit:
    """A compose file in the target version."""

    text: str
    reasons: tuple[str, ...]
    core_service: str
    """Empty in a file that runs no Core."""
    agents: tuple[str, ...]
    """Services that run an agent. More than one only where `profiles` tell them apart."""
    tag_variables: tuple[str, ...]
    """Variables that hold the tag (or the image): `edit_env` sets them where the env file has them."""
    notes: tuple[str, ...] = ()
    from_v1: bool = True
    """Whether the file's images are v1 today."""
    version: str = ""
    """The tag Core (else the agent) has today, as written: "latest", "2", "1.19.5"; empty: a digest alone."""
    keys_source: str = ""
    """The place of Core's keys: "./keys", "/srv/komodo/keys", or a volume. Empty: the files do not show it."""
    keys_target: str = KEYS
    """The mount point: /config/keys, or /config if a mount of it already holds the keys."""
    keys_named: bool = False
    """The source is a named volume."""
    images: Mapping[str, str] = field(default_factory=dict)
    """Service → the image it has after all edits."""
    key_folders: Mapping[str, str] = field(default_factory=dict)
    """Service → the folder of its keys after all edits, as written. Missing where the files do not show one."""

    @property
    def agent_service(self) -> str | None:
        """The agent, or the first one."""
        return next(iter(self.agents), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Given:
    """The target, and what the project's other files say."""

    env: Mapping[str, str]
    target: str
    keys: str
    others: Mapping[str, Overrides]
    env_files: Mapping[str, Mapping[str, str]] | None
    extended: Mapping[str, str]
    snippet: str
    copies_keys: bool = False

    def of_service(self, name: str) -> Mapping[str, str]:
        """What `env_file:` gives to a service."""
        return self.env if self.env_files is None else self.env_files.get(name, {})


@dataclass(slots=True)
class _Plan:
    changes: Changes
    found: Found
    images: dict[str, ImagePlan]
    notes: list[str]
    mount: tuple[str, str, bool] = ("", KEYS, False)
    key_folders: dict[str, str] = field(default_factory=dict)


def edit_compose(
    text: str,
    *,
    target: str,
    env: Mapping[str, str],
    keys_mount: str = "bind",
    others: Mapping[str, Overrides] | None = None,
    env_files: Mapping[str, Mapping[str, str]] | None = None,
    extended: Mapping[str, str] | None = None,
    copies_keys: bool = False,
) -> ComposeEdit:
    """Bring Komodo's services to `target` (exact: "2.3.2"). `env` is what Compose fills in: the env file's values.

    `others`: the same services in the project's other files (`overrides_of`). `env_files`: what `env_file:` of each
    service holds; None: what is in `env`. `extended`: path → text of compose files that `extends` names. `copies_keys`:
    the caller copies key pairs that are inside of containers into the folders that are mounted for them.

    Raises EditRefused, with the lines to paste, where it cannot be done with certainty.
    """
    snippet = snippet_for(text, target, keys_mount)
    if EXACT.fullmatch(target) is None or target.startswith(("0.", "1.")):
        raise EditRefused(f"{target} is not an exact version from 2.0.0 on", hint='give one like "2.3.2"')
    refuse_unreadable(text, snippet=snippet)
    documents = load(text, snippet=snippet)
    given = _Given(
        env=env, target=target, keys=keys_mount, others=others or {}, env_files=env_files,
        extended=extended or {}, snippet=snippet, copies_keys=copies_keys,
    )  # fmt: skip
    try:
        plan = _plan(documents, text, given)
        result = apply(text, plan.changes.splices)
        prove(text, result, documents, plan.changes, snippet)
        _prove_done(result, plan, given)
    except EditRefused as error:
        error.snippet, error.hint = error.snippet or snippet, error.hint or BY_HAND
        raise
    return _result(result, plan)


def _result(text: str, plan: _Plan) -> ComposeEdit:
    found = plan.found
    first = plan.images[found.services[0].name]
    return ComposeEdit(
        text=text,
        reasons=tuple(plan.changes.reasons),
        core_service=found.core.name if found.core else "",
        agents=tuple(agent.name for agent in found.agents),
        tag_variables=tuple(dict.fromkeys(v for i in plan.images.values() for v in i.variables)),
        notes=tuple(plan.notes),
        from_v1=first.from_v1,
        version=first.tag_before,
        keys_source=plan.mount[0],
        keys_target=plan.mount[1],
        keys_named=plan.mount[2],
        images={name: image.after for name, image in plan.images.items()},
        key_folders=plan.key_folders,
    )


def _plan(documents: list[Node], text: str, given: _Given) -> _Plan:
    env, keys = given.env, given.keys
    found = find(documents, text, env, given.snippet, given.others, given.extended)
    elsewhere = _used_by(found)
    plan = _Plan(changes=Changes(), found=found, images={}, notes=[])
    for service in found.services:
        refuse_alias_pairs(service, given.of_service(service.name))
        image = plan_image(service.image.value, env, given.target, elsewhere=elsewhere, snippet=given.snippet)
        plan.images[service.name] = image
        _plan_image(text, service, image, plan)
        _plan_init(text, service, env, plan)
        _plan_keys(documents, text, service, given, plan)
        if service.kind == "core" and image.from_v1:
            comment_first_server(text, found, service, plan.changes, plan.notes)
    if keys == "volume" and plan.mount == ("keys", KEYS, True) and not declared(documents, "keys"):
        declare_volume(text, documents, "keys", plan.changes)
        plan.changes.reasons.append("volumes: keys declared")
    v1 = [name for name, image in plan.images.items() if image.from_v1]
    plan.notes += notes_of(found, env, {s.name: given.of_service(s.name) for s in found.services}, v1)
    return plan


def _used_by(found: Found) -> set[str]:
    """Variables of services that are not Komodo's: setting one of them would change those too."""
    used: set[str] = set()
    for node in found.others:
        image = effective(node, "image")
        if image and isinstance(image[2], ScalarNode) and "moghtech/komodo-" in image[2].value:
            continue  # komodo-cli and the like follow Core's version
        for child in walk(node):
            if isinstance(child, ScalarNode):
                used |= names(child.value)
    return used


def _plan_image(text: str, service: Service, image: ImagePlan, plan: _Plan) -> None:
    node = service.image
    if image.raw == node.value or id(node) in plan.changes.scalars:
        return
    place = inner(text, node)
    if place is None or str(node.tag) != STRING:
        raise EditRefused(f"the image of {service.name} is not written literally on one line")
    if not plan.found.private(node):
        raise EditRefused(f"the image of {service.name} is shared with other services by an anchor")
    plan.changes.splices.append(Splice(start=place[0], end=place[1], text=image.raw))
    plan.changes.scalars[id(node)] = scalar(image.raw)
    plan.changes.reasons += [f"{service.name}: {reason}" for reason in image.reasons]


def _plan_init(text: str, service: Service, env: Mapping[str, str], plan: _Plan) -> None:
    over = service.overrides.over("init")
    if over is not None:
        if isinstance(over[1], ScalarNode) and resolve(over[1].value, env).strip().lower() in _TRUE:
            return
        raise EditRefused(
            f"{over[0]} sets init of {service.name} to something else than true, which takes precedence over this file",
            hint=f"set init: true in {over[0]}, then try again",
        )
    own = service.own("init")
    value = own[2] if own else service.inherited("init")
    if isinstance(value, ScalarNode) and resolve(value.value, env).strip().lower() in _TRUE:
        return
    _refuse_leak(service, plan)
    why = "v1's files lack it, and without it zombie processes pile up"
    if own is not None and own[0] is service.node:
        _replace_init(text, service, own[2], plan.changes)
        why = f"it was {own[2].value or 'empty'}; without it zombie processes pile up"
    else:
        _refuse_unseen(service, "init")
        add_key(text, service.node, "init", scalar("true", BOOL), ["init: true"], "init: true", plan.changes)
    plan.changes.reasons.append(f"{service.name}: init: true ({why})")


def _replace_init(text: str, service: Service, value: Node, changes: Changes) -> None:
    if not isinstance(value, ScalarNode) or str(value.tag) not in (STRING, BOOL, NULL):
        raise EditRefused(f"the init of {service.name} is not a plain true or false")
    if is_null(value):
        key = service.own("init")
        at = text.index(":", key[1].end_mark.index) + 1 if key else 0
        changes.splices.append(Splice(start=at, end=at, text=" true"))
    else:
        changes.splices.append(Splice(start=value.start_mark.index, end=value.end_mark.index, text="true"))
    changes.scalars[id(value)] = scalar("true", BOOL)


def _refuse_leak(service: Service, plan: _Plan) -> None:
    if not plan.found.private(service.node):
        raise EditRefused(f"other services inherit from {service.name} by an anchor: they would change too")


def _refuse_unseen(service: Service, key: str) -> None:
    if service.extends_elsewhere:
        raise EditRefused(
            f"{service.name} extends a service of another file, so its {key} may be there already",
            hint="give that file too, or make these changes by hand",
        )


def _plan_keys(documents: list[Node], text: str, service: Service, given: _Given, plan: _Plan) -> None:
    env = given.env
    if not plan.images[service.name].from_v1:
        refuse_lost_key(service, given.of_service(service.name), env)
    existing = keys_mount(service, env)
    if existing is None or not any(existing == m for m in mounts(service.overrides.all_later("volumes"), env)):
        service.overrides.refuse_replaced(service.name, "volumes")
    if existing is not None:
        _keep_mount(service, existing, plan)
        return
    source = "keys" if given.keys == "volume" else "./keys"
    if not plan.images[service.name].from_v1:
        _settle_pair(service, given, source, plan)
    if users_of(source, plan.found.others, env):
        raise EditRefused(
            f"another service mounts {source} already: Komodo's keys must not be among its files",
            hint=f'mount another folder for {service.name}: "./{service.name}-keys:{KEYS}", then try again',
        )
    _refuse_unseen(service, "keys mount")
    _add_mount(documents, text, service, f"{source}:{KEYS}", plan)
    _note_mount(service, source, KEYS, given.keys == "volume", plan)


def _keep_mount(service: Service, existing: Mount, plan: _Plan) -> None:
    """The mount stays as it is. Raises EditRefused where the key pair would not outlive the container."""
    if not existing.keeps:
        what = "in memory" if existing.type == "tmpfs" else "in a volume without a name"
        raise EditRefused(
            f"{service.name} has {existing.target} {what}: its keys would be lost there",
            hint=f'write "./keys:{KEYS}" instead, then try again',
        )
    if existing.read_only and plan.images[service.name].from_v1:
        raise EditRefused(
            f"{service.name} mounts {existing.target} read-only: v2 must write its key there",
            hint=f'take the "ro" away, or mount a folder at {KEYS} as well',
        )
    note = f"{service.name}: its keys are in {existing.source}, mounted at {existing.target}"
    if not existing.known:
        plan.notes.append(f"{note}; where that is depends on who starts Compose: start it in the same way as before")
    elif plan.images[service.name].from_v1:
        plan.notes.append(note)
    _note_mount(service, existing.source if existing.known else "", existing.target, existing.named, plan)


def _settle_pair(service: Service, given: _Given, source: str, plan: _Plan) -> None:
    copied = given.copies_keys and given.keys != "volume"
    if not copied and (note := refuse_new_pair(service, given.of_service(service.name), given.env, source)):
        plan.notes.append(note)


def _note_mount(service: Service, source: str, target: str, named: bool, plan: _Plan) -> None:
    if source and not named:
        plan.key_folders[service.name] = source if target == KEYS else f"{source.rstrip('/')}/keys"
    if service.kind == "core" or plan.found.core is None:
        plan.mount = (source, target, named)


def _add_mount(documents: list[Node], text: str, service: Service, item: str, plan: _Plan) -> None:
    changes, indent = plan.changes, list_indent(documents, service.node)
    own = service.own("volumes")
    if own is None or (is_null(own[2]) and own[0] is not service.node):
        _refuse_leak(service, plan)
        lines = ["volumes:", f"{' ' * indent}- {item}"]
        add_key(text, service.node, "volumes", ("seq", SEQ, (scalar(item),)), lines, f'volumes: ["{item}"]', changes)
    elif id(own[2]) not in changes.first_items and id(own[2]) not in changes.scalars:
        if not plan.found.private(own[2]):
            raise EditRefused(f"the volumes of {service.name} are shared with other services by an anchor")
        add_item(text, own[1], own[2], item, indent, changes)
    changes.reasons.append(f"{service.name}: {item} mounted (v2 keeps its key pair there)")


def _prove_done(result: str, plan: _Plan, given: _Given) -> None:
    """Plan once more on the result: the same services, the target's image, and nothing left to do."""
    settled = {**given.env}
    for image in plan.images.values():
        settled.update(image.env)
    again = _plan(load(result, snippet=given.snippet), result, replace(given, env=settled))
    same = {n: i.after for n, i in plan.images.items()} == {n: i.before for n, i in again.images.items()}
    if again.changes.splices or not same:
        raise EditRefused("the edited file would not mean what was planned", snippet=given.snippet)


def snippet_for(text: str, target: str, keys: str = "bind") -> str:
    """The lines to paste where nothing is edited: Core's part, and the agent's where the file mentions one."""
    source = "keys" if keys == "volume" else "./keys"
    lines = ["services:"]
    agent = "periphery" in text
    core = not agent or any(word in text for word in ("komodo-core", "mbecker20/komodo", "KOMODO_"))
    mounted = re.search(r"/config(?:/keys)?/?[\"',:}\]\s]", text)  # the place of the keys is never changed
    for kind, name, wanted in (("core", "core", core), ("periphery", "periphery", agent)):
        if wanted:
            image = NEW_NAMES["core" if kind == "core" else "periphery"]
            lines += [f"  {name}:", f"    image: ghcr.io/{image}:{target}", "    init: true"]
            lines += [] if mounted else ["    volumes:", f"      - {source}:{KEYS}"]
    if keys == "volume" and not mounted:
        lines += ["volumes:", f"  {source}:"]
    return "\n".join(lines)
