"""Compose's variables inside a value: `$VAR`, `${VAR}`, `${VAR:-default}`, `${VAR:?error}`, `${VAR:+other}`, `$$`.

Compose's rules: docs.docker.com/reference/compose-file/interpolation. Nothing is ever run or read here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from model.errors import EditRefused

LARGEST_VALUE = 64 * 1024
"""Characters. Variables that name each other double a value with every line."""
_DEEPEST = 20
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_OPERATORS = (":-", ":?", ":+", "-", "?", "+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Variable:
    """One `${…}` with its place in the text it was found in."""

    name: str
    operator: str = ""
    """One of "", ":-", "-", ":?", "?", ":+", "+"."""
    argument: str = ""
    start: int
    end: int
    argument_start: int = 0

    def is_set(self, env: Mapping[str, str]) -> bool:
        """Whether the environment decides, not the default."""
        if self.name not in env:
            return False
        return bool(env[self.name]) or not self.operator.startswith(":")

    @property
    def has_default(self) -> bool:
        """`${VAR:-default}` or `${VAR-default}`."""
        return self.operator in (":-", "-")


def variables(text: str) -> Iterator[Variable]:
    """Every variable at the outermost level, in order. What is malformed counts as plain text."""
    at = 0
    while (at := text.find("$", at)) != -1:
        if text.startswith("$$", at):
            at += 2
            continue
        found = _variable(text, at)
        if found is None:
            at += 1
            continue
        yield found
        at = found.end


def _variable(text: str, at: int) -> Variable | None:
    braced = text.startswith("${", at)
    name = _NAME.match(text, at + (2 if braced else 1))
    if name is None:
        return None
    if not braced:
        return Variable(name=name.group(), start=at, end=name.end())
    closing = _closing(text, name.end())
    if closing == -1:
        return None
    rest = text[name.end() : closing]
    if not rest:
        return Variable(name=name.group(), start=at, end=closing + 1)
    operator = next((o for o in _OPERATORS if rest.startswith(o)), None)
    if operator is None:
        return None
    return Variable(
        name=name.group(),
        operator=operator,
        argument=rest[len(operator) :],
        start=at,
        end=closing + 1,
        argument_start=name.end() + len(operator),
    )


def _closing(text: str, at: int) -> int:
    depth = 1
    for i in range(at, len(text)):
        if text.startswith("${", i):
            depth += 1
        elif text[i] == "}":
            depth -= 1
            if depth == 0:
                return i
    return -1


def resolve(text: str, env: Mapping[str, str], depth: int = 0) -> str:
    """The text with every variable replaced, as Compose would; a variable without value and default is empty.

    Raises EditRefused for a value that is too long or nested too deeply.
    """
    if len(text) > LARGEST_VALUE or depth > _DEEPEST:
        raise _too_long()
    out: list[str] = []
    at = 0
    for v in variables(text):
        out.append(text[at : v.start].replace("$$", "$"))
        at = v.end
        if v.operator in (":+", "+"):
            present = bool(env.get(v.name)) if v.operator == ":+" else v.name in env
            out.append(resolve(v.argument, env, depth + 1) if present else "")
        elif v.is_set(env):
            out.append(env[v.name])
        elif v.has_default:
            out.append(resolve(v.argument, env, depth + 1))
    out.append(text[at:].replace("$$", "$"))
    if sum(map(len, out)) > LARGEST_VALUE:
        raise _too_long()
    return "".join(out)


def _too_long() -> EditRefused:
    return EditRefused(
        f"a value with variables is longer than {LARGEST_VALUE // 1024} KiB, or its defaults are nested too deeply",
        hint="give the variables shorter values",
    )


def names(text: str, depth: int = 0) -> set[str]:
    """Every variable that is mentioned, those inside defaults included."""
    if depth > _DEEPEST:
        raise _too_long()
    found: set[str] = set()
    for v in variables(text):
        found.add(v.name)
        found |= names(v.argument, depth + 1)
    return found
