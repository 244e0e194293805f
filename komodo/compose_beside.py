"""The project's other compose files: what they say of the same service counts too, and the later file's word most.

Compose joins its files key by key: a scalar of a later file replaces the earlier one, lists and maps are joined, and
`!override` and `!reset` take away what came before (docs.docker.com/reference/compose-file/merge).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ruamel.yaml.nodes import MappingNode, Node

from komodo.compose_text import effective, load, pair
from model.errors import EditRefused


@dataclass(frozen=True, slots=True, kw_only=True)
class Beside:
    """One service in the project's other files."""

    earlier: tuple[MappingNode, ...] = ()
    """In files before this one, the nearest first."""
    later: tuple[tuple[str, MappingNode], ...] = ()
    """Path and body in files after this one, the last first: it counts most."""

    def over(self, key: str) -> tuple[str, Node] | None:
        """What counts more than this file's word: the path and the value of a later file that has the key."""
        for path, node in self.later:
            found = effective(node, key)
            if found is not None:
                return path, found[2]
        return None

    def all_later(self, key: str) -> tuple[Node, ...]:
        """The values of a key in later files, what counts most first."""
        found = (effective(node, key) for _, node in self.later)
        return tuple(f[2] for f in found if f is not None)

    def refuse_replaced(self, service: str, key: str) -> None:
        """Raise EditRefused where a later file takes this file's list or map away instead of adding to it."""
        for path, node in self.later:
            found = effective(node, key)
            if str(node.tag) in _REPLACES or (found is not None and str(found[2].tag) in _REPLACES):
                raise EditRefused(
                    f"{path} replaces the {key} of {service} (!override, !reset): what is added here would not count",
                    cure=f"add it to {key} of {service} in {path} by hand, then try again",
                )


_REPLACES = ("!override", "!reset")
NOTHING = Beside()


def besides(texts: Mapping[str, str], path: str) -> Mapping[str, Beside]:
    """Service → what the project's other files say of it. `texts`: all of them by path, in Compose's order.

    Raises EditRefused where one of them is no YAML.
    """
    order = list(texts)
    at = order.index(path)
    bodies = {p: _services(p, texts[p]) for p in order if p != path}
    names = dict.fromkeys(name for found in bodies.values() for name in found)
    return {
        name: Beside(
            earlier=tuple(bodies[p][name] for p in reversed(order[:at]) if name in bodies[p]),
            later=tuple((p, bodies[p][name]) for p in reversed(order[at + 1 :]) if name in bodies[p]),
        )
        for name in names
    }


def _services(path: str, text: str) -> dict[str, MappingNode]:
    try:
        documents: Sequence[Node] = load(text, snippet="")
    except EditRefused as error:
        raise EditRefused(f"{path}: {error.what}", cure=error.cure) from None
    found = [pair(document, "services") for document in documents]
    bodies = [value[1] for value in found if value is not None and isinstance(value[1], MappingNode)]
    return {str(k.value): v for body in bodies for k, v in body.value if isinstance(v, MappingNode)}
