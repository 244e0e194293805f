"""Insert new keys, items and declarations into a compose file. Every other line stays as it is."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ruamel.yaml.nodes import MappingNode, Node, SequenceNode

from komodo.compose.yaml_nodes import MAP, NULL, SEQ, Changes, Tree, inner, is_flow, is_null, pair, scalar
from komodo.files.splice import Splice, line_start, lines_after, newline_of
from model.errors import EditRefused


def prefix(text: str, at: int) -> str:
    """The text before a place on its line, without a byte order mark."""
    return text[line_start(text, at) : at].replace("\ufeff", "")


def add_key(
    text: str, node: MappingNode, name: str, value: Tree, lines: Sequence[str], flow: str, changes: Changes
) -> None:
    """Add one key to a service: behind its image line, else before its first key.

    `lines` are indented relative to the key, `flow` is the same for a service written with braces. Raises EditRefused
    where there is no safe place.
    """
    image = pair(node, "image")
    place = inner(text, image[1]) if image else None
    if image and place and place[0] < image[0].end_mark.index:
        place = None  # an alias: its value is at the anchor, somewhere above
    if is_flow(node):
        end = image[1].end_mark.index if image else 0
        if not image or not place:
            raise EditRefused("the service is written with braces and has no image of its own")
        changes.splices.append(Splice(start=end, end=end, text=f", {flow}"))
    elif image and place:
        indent = prefix(text, image[0].start_mark.index)
        _blank_only(indent)
        changes.splices.append(lines_after(text, place[1], [indent + line for line in lines]))
    else:
        first = node.value[0][0].start_mark.index
        indent = prefix(text, first)
        _blank_only(indent)
        newline = newline_of(text, first)
        start = line_start(text, first)
        changes.splices.append(Splice(start=start, end=start, text="".join(indent + x + newline for x in lines)))
    changes.added.setdefault(id(node), []).append((name, value))


def _blank_only(indent: str) -> None:
    if indent.strip(" "):
        raise EditRefused("the service's keys are not on lines of their own")


def add_item(text: str, key: Node, value: Node, item: str, indent: int, changes: Changes) -> None:
    """Insert one item at the beginning of a list. Raises EditRefused where the value is not such a list."""
    if is_null(value):
        column = prefix(text, key.start_mark.index)
        _blank_only(column)
        changes.splices.append(lines_after(text, key.start_mark.index, [f"{column}{' ' * indent}- {item}"]))
        changes.scalars[id(value)] = ("seq", SEQ, (scalar(item),))
        return
    if not isinstance(value, SequenceNode) or str(value.tag) not in (SEQ, "!override"):
        raise EditRefused(f"the value of {key.value} is not a list that can be added to")
    if is_flow(value):
        at = text.index("[", value.start_mark.index) + 1
        changes.splices.append(Splice(start=at, end=at, text=f'"{item}"' + (", " if value.value else "")))
    else:
        dash = re.fullmatch(r"( *)-[ \t]+(?:.*)", prefix(text, value.value[0].start_mark.index))
        if dash is None or value.value[0].start_mark.line == key.start_mark.line:
            raise EditRefused(f"the items of {key.value} are not on lines of their own")
        changes.splices.append(in_front(text, key, value.value[0], f"{dash[1]}- {item}"))
    changes.first_items.setdefault(id(value), []).insert(0, scalar(item))


def in_front(text: str, key: Node, first: Node, line: str) -> Splice:
    """A line behind the key's, so that comments stay with what they describe; at an alias's anchor before the first."""
    at = first.start_mark.index
    if at > key.end_mark.index:
        return lines_after(text, key.start_mark.index, [line])
    return Splice(start=line_start(text, at), end=line_start(text, at), text=line + newline_of(text, at))


def declare_volume(text: str, documents: Sequence[Node], name: str, changes: Changes) -> None:
    """Declare a named volume at the top of the document that holds the services."""
    document = next(d for d in documents if pair(d, "services") is not None)
    found = pair(document, "volumes")
    empty: Tree = scalar("", NULL)
    if found is None:
        if document is not documents[-1] or re.search(r"^\.\.\.", text, re.MULTILINE) or is_flow(document):
            raise EditRefused("there is no safe place for the volume's declaration")
        indent = prefix(text, document.value[0][0].start_mark.index)
        _blank_only(indent)
        changes.splices.append(_at_end(text, [f"{indent}volumes:", f"{indent}  {name}:"]))
        changes.added.setdefault(id(document), []).append(("volumes", ("map", MAP, ((scalar(name), empty),))))
        return
    key, value = found
    if is_null(value):
        column = prefix(text, key.start_mark.index)
        changes.splices.append(lines_after(text, key.start_mark.index, [f"{column}  {name}:"]))
        changes.scalars[id(value)] = ("map", MAP, ((scalar(name), empty),))
    elif isinstance(value, MappingNode) and is_flow(value):
        at = text.index("{", value.start_mark.index) + 1
        changes.splices.append(Splice(start=at, end=at, text=f"{name}: {{}}" + (", " if value.value else "")))
        changes.added.setdefault(id(value), []).append((name, ("map", MAP, ())))
    elif isinstance(value, MappingNode):
        indent = prefix(text, value.value[0][0].start_mark.index)
        _blank_only(indent)
        changes.splices.append(lines_after(text, key.start_mark.index, [f"{indent}{name}:"]))
        changes.added.setdefault(id(value), []).append((name, empty))
    else:
        raise EditRefused("the top-level volumes are not a mapping")


def _at_end(text: str, lines: Sequence[str]) -> Splice:
    newline = newline_of(text, len(text))
    joined = newline.join(lines)
    end = len(text)
    return Splice(start=end, end=end, text=joined + newline if text.endswith("\n") else newline + joined)
