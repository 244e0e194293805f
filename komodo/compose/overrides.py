"""What the project's other compose files set for the same service. Later files take precedence.

Compose merges its files key by key: a scalar of a later file replaces the earlier one, lists and maps are joined, and
`!override` and `!reset` remove what earlier files set (docs.docker.com/reference/compose-file/merge).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ruamel.yaml.nodes import MappingNode, Node

from komodo.compose.yaml_nodes import effective, load, pair
from model.errors import EditRefused


@dataclass(frozen=True, slots=True, kw_only=True)
class Overrides:
    """One service in the project's other files."""

    earlier: tuple[MappingNode, ...] = ()
    """In files before this one, the nearest one first."""
    later: tuple[tuple[str, MappingNode], ...] = ()
    """Path and body in files after this one, the last file first: it takes precedence."""

    def over(self, key: str) -> tuple[str, Node] | None:
        """The path of a later file that has the key, and its value there, which takes precedence over this file."""
        for path, node in self.later:
            found = effective(node, key)
            if found is not None:
                return path, found[2]
        return None

    def all_later(self, key: str) -> tuple[Node, ...]:
        """The values of a key in later files, the one that takes precedence first."""
        found = (effective(node, key) for _, node in self.later)
        return tuple(f[2] for f in found if f is not None)

    def refuse_replaced(self, service: str, key: str) -> None:
        """Raise EditRefused where a later file replaces this file's list or map instead of adding to it."""
        for path, node in self.later:
            found = effective(node, key)
            if str(node.tag) in _REPLACES or (found is not None and str(found[2].tag) in _REPLACES):
                raise EditRefused(
                    f"{path} replaces the {key} of {service} (!override, !reset): additions here would have no effect",
                    hint=f"add it to {key} of {service} in {path} by hand, then try again",
                )


_REPLACES = ("!override", "!reset")
NO_OVERRIDES = Overrides()


def overrides_of(texts: Mapping[str, str], path: str) -> Mapping[str, Overrides]:
    """Service → what the project's other files set for it. `texts`: all of them by path, in Compose's order.

    Raises EditRefused where one of them is not YAML.
    """
    order = list(texts)
    at = order.index(path)
    bodies = {p: _services(p, texts[p]) for p in order if p != path}
    names = dict.fromkeys(name for found in bodies.values() for name in found)
    return {
        name: Overrides(
            earlier=tuple(bodies[p][name] for p in reversed(order[:at]) if name in bodies[p]),
            later=tuple((p, bodies[p][name]) for p in reversed(order[at + 1 :]) if name in bodies[p]),
        )
        for name in names
    }


def _services(path: str, text: str) -> dict[str, MappingNode]:
    try:
        documents: Sequence[Node] = load(text, snippet="")
    except EditRefused as error:
        raise EditRefused(f"{path}: {error.what}", hint=error.hint) from None
    found = [pair(document, "services") for document in documents]
    bodies = [value[1] for value in found if value is not None and isinstance(value[1], MappingNode)]
    return {str(k.value): v for body in bodies for k, v in body.value if isinstance(v, MappingNode)}
