"""Comparing what the sandbox says with what real Komodo said: shapes instead of values, text without times and keys."""

from __future__ import annotations

import re
from typing import Any


def shape(value: Any) -> Any:
    """Keys and types. A list is the set of its items' shapes, except items with names, which are distinguished."""
    if isinstance(value, dict):
        return {key: shape(inner) for key, inner in sorted(value.items())}
    if isinstance(value, list):
        found: list[Any] = []
        for inner in value:
            if (one := shape(inner)) not in found:
                found.append(one)
        return sorted(found, key=repr)
    if isinstance(value, bool):
        return "bool"
    if value is None:
        return "null"
    return {int: "int", float: "float", str: "str"}[type(value)]


_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z")
_KEY = re.compile(r"MCowBQYDK2VuAyEA[A-Za-z0-9+/]{43}=")


def plain(lines: list[str]) -> list[str]:
    """Times, keys, thread numbers and JSON columns replaced."""
    out = []
    for line in lines:
        text = _KEY.sub("<key>", _TIME.sub("<time>", line))
        text = re.sub(r"\(\d{5}\)", "(<thread>)", text)
        text = re.sub(r"column: \d+", "column: <n>", text)
        out.append(re.sub(r"span: Some\(\d+\.\.\d+\)", "span: Some(<span>)", text))  # the captured paths were shortened
    return out
