"""A compose file as YAML nodes with their offsets in the text, so that edits can be made on lines.

As tolerant as Compose (tags such as `!override`, several documents, tabs before comments) and as strict: go-yaml
refuses duplicate keys, so a file with one does not run and is not edited.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from komodo.files.detect import template_line
from komodo.files.splice import Splice, line_number, untouched_equal
from model.errors import EditRefused

MERGE = "tag:yaml.org,2002:merge"
NULL = "tag:yaml.org,2002:null"
STRING = "tag:yaml.org,2002:str"
BOOL = "tag:yaml.org,2002:bool"
MAP = "tag:yaml.org,2002:map"
SEQ = "tag:yaml.org,2002:seq"

LARGEST_FILE = 256 * 1024
"""Characters; the compose files of large installations have a tenth of that, and parsing takes a second for it."""
MOST_NODES = 100_000
"""Of a file with its aliases expanded, as Compose reads it."""
DEEPEST = 200
"""Open brackets, or `- ` in a row; the parser takes seconds for a few thousand."""
BY_HAND = "make these changes by hand: the file is written in a way that cannot be edited with certainty"

Tree = tuple[Any, ...]
"""What a node means, comparable: ("scalar", tag, value), ("seq", tag, items), ("map", tag, pairs in sorted order)."""


@dataclass(slots=True)
class Changes:
    """The planned changes: as text, and as data by the identity of nodes, so that the two can be compared."""

    splices: list[Splice] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)
    scalars: dict[int, Tree] = field(default_factory=dict)
    """Node → what it becomes."""
    added: dict[int, list[tuple[str, Tree]]] = field(default_factory=dict)
    """Mapping → new pairs."""
    first_items: dict[int, list[Tree]] = field(default_factory=dict)
    """Sequence → new items at its beginning."""
    removed: set[int] = field(default_factory=set)
    """Key nodes and items that are removed."""


def scalar(value: str, tag: str = STRING) -> Tree:
    """The tree of a scalar."""
    return ("scalar", tag, value)


def load(text: str, *, snippet: str) -> list[Node]:
    """The documents of a file. Raises EditRefused, with the line, where Compose could not read it either.

    Files that are too large, too deep, or that multiply themselves by aliases are refused, too.
    """
    if len(text) > LARGEST_FILE:
        raise _refuse_size(f"it has more than {LARGEST_FILE // 1024} KiB", snippet)
    if _depth(text) > DEEPEST:
        raise _refuse_size("it is nested too deeply", snippet)
    try:
        documents = _documents(text)
        if sum(_expanded(document) for document in documents) > MOST_NODES:
            raise _refuse_size(f"its aliases expand it to more than {MOST_NODES} values", snippet)
    except RecursionError:
        raise _refuse_size("it is nested too deeply", snippet) from None
    except YAMLError as error:
        _refuse_template(text, snippet)
        mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
        where = f"line {mark.line + 1}: " if mark is not None else ""
        what = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise EditRefused(
            f"{where}this is not valid YAML: {what}", snippet=snippet, hint="correct that line, then try again"
        ) from error
    for document in documents:
        for node in walk(document):
            _refuse_duplicates(text, node, snippet)
    return documents


def _refuse_size(why: str, snippet: str) -> EditRefused:
    return EditRefused(f"this file is not edited: {why}", snippet=snippet, hint=BY_HAND)


def _depth(text: str) -> int:
    deepest = depth = 0
    for bracket in re.findall(r"[\[\]{}]", text):
        depth = depth + 1 if bracket in "[{" else max(0, depth - 1)
        deepest = max(deepest, depth)
    return max(deepest, *(len(dashes) // 2 for dashes in re.findall(r"(?:- ){20,}", text)), 0)


def _expanded(node: Node, known: dict[int, int] | None = None) -> int:
    """Number of nodes with every alias expanded."""
    known = {} if known is None else known
    if id(node) not in known:
        known[id(node)] = 1  # an anchor that holds itself is refused elsewhere
        if isinstance(node, MappingNode):
            known[id(node)] = 1 + sum(_expanded(k, known) + _expanded(v, known) for k, v in node.value)
        elif isinstance(node, SequenceNode):
            known[id(node)] = 1 + sum(_expanded(v, known) for v in node.value)
    return known[id(node)]


def _refuse_template(text: str, snippet: str) -> None:
    line = template_line(text)
    if line:
        raise EditRefused(
            f"line {line} is a template ({{{{ … }}}} without quotes): another tool renders this file",
            snippet=snippet,
            hint="make these changes in the template and render it again",
        )


def _documents(text: str) -> list[Node]:
    try:
        return [d for d in YAML(typ="safe", pure=True).compose_all(text) if d is not None]
    except YAMLError:
        untabbed = _without_tabs(text)
        if untabbed == text:
            raise
        return [d for d in YAML(typ="safe", pure=True).compose_all(untabbed) if d is not None]


def _without_tabs(text: str) -> str:
    """Tabs that YAML takes as blanks, and this parser does not, become one blank each: offsets stay."""
    comments = re.sub(r"^[ \t]*\t[ \t]*(?=#|\r?$)", lambda m: " " * len(m.group()), text, flags=re.MULTILINE)
    return re.sub(r"(?<=[^ \t\n])[ \t]*\t[ \t]*", lambda m: " " * len(m.group()), comments)


def _refuse_duplicates(text: str, node: Node, snippet: str) -> None:
    if not isinstance(node, MappingNode):
        return
    seen: dict[str, Node] = {}
    for key, _ in node.value:
        if not isinstance(key, ScalarNode):
            _refuse_template(text, snippet)
            raise EditRefused(
                f"line {line_number(text, key.start_mark.index)}: a key that is not a plain name",
                snippet=snippet,
                hint="give the file as Compose reads it",
            )
        if key.value in seen:
            first = line_number(text, seen[key.value].start_mark.index)
            second = line_number(text, key.start_mark.index)
            raise EditRefused(
                f"the key {key.value!r} is set twice, on lines {first} and {second}: Compose refuses this file",
                snippet=snippet,
                hint="remove one of the two",
            )
        seen[key.value] = key


def walk(node: Node) -> Iterator[Node]:
    """Every node once, aliases not again."""
    seen: set[int] = set()
    stack = [node]
    while stack:
        current = stack.pop()
        if id(current) in seen:
            continue
        seen.add(id(current))
        yield current
        if isinstance(current, MappingNode):
            for key, value in current.value:
                stack += [key, value]
        elif isinstance(current, SequenceNode):
            stack += current.value


def tree(node: Node, changes: Changes | None = None) -> Tree:
    """What a node means, with the planned changes made. Raises EditRefused for an anchor that holds itself."""
    return _Builder(changes or Changes()).build(node)


class _Builder:
    def __init__(self, changes: Changes) -> None:
        self.changes = changes
        self.known: dict[int, Tree] = {}
        self.open: set[int] = set()

    def build(self, node: Node) -> Tree:
        if id(node) in self.changes.scalars:
            return self.changes.scalars[id(node)]
        if id(node) in self.open:
            raise EditRefused("an anchor in this file holds itself")
        if id(node) not in self.known:
            self.open.add(id(node))
            self.known[id(node)] = self._build(node)
            self.open.remove(id(node))
        return self.known[id(node)]

    def _build(self, node: Node) -> Tree:
        changes = self.changes
        if isinstance(node, MappingNode):
            pairs = [(self.build(k), self.build(v)) for k, v in node.value if id(k) not in changes.removed]
            pairs += [(scalar(name), value) for name, value in changes.added.get(id(node), [])]
            return ("map", str(node.tag), tuple(sorted(pairs, key=repr)))
        if isinstance(node, SequenceNode):
            items = [self.build(v) for v in node.value if id(v) not in changes.removed]
            items = changes.first_items.get(id(node), []) + items
            return ("seq", str(node.tag), tuple(items))
        return ("scalar", str(node.tag), node.value)


def pair(node: Node | None, name: str) -> tuple[ScalarNode, Node] | None:
    """A mapping's own key and value. Merged ones are ignored."""
    if isinstance(node, MappingNode):
        for key, value in node.value:
            if key.value == name and key.tag != MERGE:
                return key, value
    return None


def merged_from(node: MappingNode) -> list[MappingNode]:
    """The mappings that `<<` brings in. The first one takes precedence."""
    found: list[MappingNode] = []
    for key, value in node.value:
        if key.tag == MERGE or key.value == "<<":
            candidates: Sequence[Node] = value.value if isinstance(value, SequenceNode) else [value]
            found += [c for c in candidates if isinstance(c, MappingNode)]
    return found


def effective(node: Node | None, name: str, depth: int = 0) -> tuple[MappingNode, ScalarNode, Node] | None:
    """A key, merged ones included: the mapping that holds it, the key and the value."""
    if not isinstance(node, MappingNode) or depth > 20:
        return None
    own = pair(node, name)
    if own is not None:
        return node, *own
    for merged in merged_from(node):
        found = effective(merged, name, depth + 1)
        if found is not None:
            return found
    return None


def is_null(node: Node) -> bool:
    """An empty value: `volumes:` without anything after it."""
    return isinstance(node, ScalarNode) and node.tag == NULL


def is_flow(node: Node) -> bool:
    """Written with brackets or braces."""
    return bool(getattr(node, "flow_style", False))


def inner(text: str, node: Node) -> tuple[int, int] | None:
    """Where a scalar's value is verbatim in the text, without quotes; None when it is escaped, folded or typed."""
    if not isinstance(node, ScalarNode):
        return None
    start, end = node.start_mark.index, node.end_mark.index
    if node.style in ('"', "'"):
        start, end = text.find(node.style, start, end) + 1, end - 1
    elif node.style is None:
        start = end - len(node.value)
    return (start, end) if text[start:end] == node.value and "\n" not in node.value else None


def prove(before: str, after: str, documents: Sequence[Node], changes: Changes, snippet: str) -> None:
    """Raise EditRefused unless the difference of the data is exactly the plan and every other character is the same."""
    expected = [tree(d, changes) for d in documents]
    try:
        found = [tree(d) for d in load(after, snippet=snippet)]
    except EditRefused:  # its line numbers are those of a file that does not exist
        found = []
    if expected != found or not untouched_equal(before, after, changes.splices):
        raise EditRefused(
            "an edit of this file would change more than was planned",
            snippet=snippet,
            hint=BY_HAND,
        )
