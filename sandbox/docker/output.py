"""Output that several docker commands share: inspected values, the STATUS column, "No such container"."""

from __future__ import annotations

import json
from typing import Any

from sandbox.docker import go_template
from sandbox.docker.engine import Container
from sandbox.machine.call import Call
from sandbox.world import now


def missing(call: Call, reference: str) -> int:
    """Print that there is no such container. Returns the exit code."""
    call.err(f"Error response from daemon: No such container: {reference}\n")
    return 1


def print_values(call: Call, found: dict[str, list[str]], values: list[dict[str, Any]], code: int) -> int:
    """Inspected values, by the template that was asked for, else as indented JSON. Returns `code`."""
    template = (found.get("-f", []) + found.get("--format", []) + [""])[0]
    if template and template != "json":
        call.out("".join(go_template.render(template, v) + "\n" for v in values))
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
