"""The part of Go's templates that `docker … --format` is used with: fields, json, index, range, println, if, join."""

from __future__ import annotations

import json
import re
from typing import Any

_ACTION = re.compile(r"\{\{-?\s*(.*?)\s*-?\}\}", re.DOTALL)
_WORD = re.compile(r'"(?:[^"\\]|\\.)*"|\S+')


def render(template: str, value: Any) -> str:
    """Fill a template. Raises ValueError for what is not supported."""
    tokens: list[tuple[str, str]] = []
    end = 0
    for match in _ACTION.finditer(template):
        tokens += [("text", template[end : match.start()]), ("do", match.group(1))]
        end = match.end()
    tokens.append(("text", template[end:]))
    out, rest = _block(tokens, value, value)
    if rest:
        raise ValueError("unexpected {{end}}")
    return out


def _block(tokens: list[tuple[str, str]], dot: Any, root: Any) -> tuple[str, list[tuple[str, str]]]:
    out = ""
    while tokens:
        kind, text = tokens[0]
        tokens = tokens[1:]
        if kind == "text":
            out += text
            continue
        word, _, rest = text.partition(" ")
        if word in {"end", "else"}:
            return out, [(kind, text), *tokens]
        if word in {"range", "if", "with"}:
            part, tokens = _nested(word, rest, tokens, dot, root)
            out += part
        else:
            out += _text(_evaluate(text, dot, root))
    return out, []


def _nested(
    word: str, expression: str, tokens: list[tuple[str, str]], dot: Any, root: Any
) -> tuple[str, list[tuple[str, str]]]:
    value = _evaluate(re.sub(r"^\$\w+(?:\s*,\s*\$\w+)?\s*:=\s*", "", expression), dot, root)
    if word == "range":
        items = list(value.values()) if isinstance(value, dict) else list(value or [])
    else:
        items = [value if word == "with" else dot] if value else []
    out = ""
    rest = tokens
    for item in items:
        part, rest = _block(tokens, item, root)
        out += part
    if not items:
        _, rest = _block(tokens, None, root)
    if rest and rest[0][1].startswith("else"):
        part, rest = _block(rest[1:], dot, root)
        out += "" if items else part
    return out, rest[1:]


def _evaluate(text: str, dot: Any, root: Any) -> Any:
    value: Any = None
    for position, stage in enumerate(text.split("|")):
        words = _WORD.findall(stage.strip().replace("(", " ").replace(")", " "))
        extra = [value] if position else []
        value = _call(words, dot, root, extra)
    return value


def _call(words: list[str], dot: Any, root: Any, extra: list[Any]) -> Any:
    name, *arguments = words
    values = [_value(a, dot, root) for a in arguments] + extra
    if name == "json":
        return json.dumps(values[0], separators=(",", ":"), ensure_ascii=False)
    if name == "println":
        return " ".join(_text(v) for v in values) + "\n"
    if name == "index":
        found = values[0]
        for key in values[1:]:
            found = found.get(key) if isinstance(found, dict) else (found or [""])[int(key)]
        return found
    if name == "join":
        return str(values[1]).join(values[0])
    if name == "len":
        return len(values[0] or [])
    if name in {"eq", "ne"}:
        return (values[0] == values[1]) == (name == "eq")
    if arguments or extra:
        raise ValueError(f'function "{name}" not defined')
    return _value(name, dot, root)


def _value(word: str, dot: Any, root: Any) -> Any:
    if word.startswith('"'):
        return json.loads(word)
    if word.lstrip("-").isdigit():
        return int(word)
    if word == ".":
        return dot
    value = root if word.startswith("$") else dot
    for name in word.lstrip("$").strip(".").split("."):
        if name:
            value = value.get(name) if isinstance(value, dict) else None
    return value


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is None:
        return "<no value>"
    if isinstance(value, dict):
        return "map[" + " ".join(f"{k}:{_text(v)}" for k, v in sorted(value.items())) + "]"
    if isinstance(value, list):
        return "[" + " ".join(_text(v) for v in value) + "]"
    return str(value)
