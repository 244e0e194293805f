"""The guard: what the edited file means is what the old one meant plus the plan, and untouched text is untouched."""

from __future__ import annotations

from collections.abc import Sequence

from ruamel.yaml.nodes import Node

from komodo.compose_text import Changes, load, tree
from komodo.splice import untouched_equal
from model.errors import EditRefused

BY_HAND = "make these changes by hand: the file is written in a way that is not edited with certainty"


def prove(before: str, after: str, documents: Sequence[Node], changes: Changes, snippet: str) -> None:
    """Raise EditRefused unless the difference of the data is exactly the plan and every other character is the same."""
    expected = [tree(d, changes) for d in documents]
    try:
        found = [tree(d) for d in load(after, snippet=snippet)]
    except EditRefused:  # its lines are those of a file that nobody has
        found = []
    if expected != found or not untouched_equal(before, after, changes.splices):
        raise EditRefused(
            "an edit of this file would change more than was planned",
            snippet=snippet,
            cure=BY_HAND,
        )
