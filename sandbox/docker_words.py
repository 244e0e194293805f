"""What the docker stand-ins share: options, templates, and Docker's way of saying that something is not there."""

from __future__ import annotations

import json
from typing import Any

from sandbox import gotemplate
from sandbox.engine import Container
from sandbox.standin import Call
from sandbox.world import now


def options(argv: list[str], valued: str, *, first: bool = False) -> tuple[dict[str, list[str]], list[str]]:
    """Options and words; `valued` lists the options with a value. `first`: options end at the first word."""
    known = set(valued.split())
    found: dict[str, list[str]] = {}
    words: list[str] = []
    rest = list(argv)
    while rest:
        word = rest.pop(0)
        name, equals, value = word.partition("=")
        if not word.startswith("-") or word == "-":
            words.append(word)
            if first:
                return found, words + rest
        elif name in known:
            value = value if equals else (rest.pop(0) if rest else "")
            found.setdefault(name, []).append(value)
        elif word.startswith("--"):
            found.setdefault(name, []).append(value)
        else:
            for letter in word[1:]:
                found.setdefault(f"-{letter}", []).append("")
    return found, words


def missing(call: Call, reference: str) -> int:
    """No such container."""
    call.err(f"Error response from daemon: No such container: {reference}\n")
    return 1


def print_values(call: Call, found: dict[str, list[str]], values: list[dict[str, Any]], code: int) -> int:
    """Inspected values, by the template that was asked for, else as indented JSON. Returns `code`."""
    template = (found.get("-f", []) + found.get("--format", []) + [""])[0]
    if template and template != "json":
        call.out("".join(gotemplate.render(template, v) + "\n" for v in values))
    elif template == "json":
        call.out(json.dumps(values) + "\n")
    else:
        call.out(json.dumps(values, indent=4) + "\n")
    return code


def status(container: Container) -> str:
    """As in the STATUS column."""
    if container.status == "running" and container.started:
        return f"Up {max(int((now() - container.started).total_seconds()), 1)} seconds"
    if container.status == "created":
        return "Created"
    prefix = "Restarting" if container.status == "restarting" else "Exited"
    return f"{prefix} ({container.exit_code}) 1 second ago"
