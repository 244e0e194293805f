"""Where a detached job's state lives on a host, and what its starter (job.sh) says."""

from __future__ import annotations

import re
from dataclasses import dataclass

_PART = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*")


@dataclass(frozen=True, slots=True)
class Place:
    """A job's folder, and the fleet that its lock is taken for."""

    path: str
    fleet: str


def job_place(op: str, folder: str, change: str) -> Place:
    """`<change>/<target>/<attempt>/<step>` under the run folder `<state_dir>/<fleet>/<change>`."""
    parts = op.split("/")
    if len(parts) != 4:
        raise ValueError(f"not an operation id: {op!r}")
    return _place(parts, folder, change)


def void_place(prefix: str, folder: str, change: str) -> Place:
    """The folder of an attempt's jobs, or of one job."""
    parts = prefix.strip("/").split("/")
    if len(parts) not in (2, 3, 4):
        raise ValueError(f"not the beginning of an operation id: {prefix!r}")
    return _place(parts, folder, change)


def is_part(text: str) -> bool:
    """May be one part of a path, and a word of a lock file."""
    return bool(_PART.fullmatch(text))


def _place(parts: list[str], folder: str, change: str) -> Place:
    way = folder.rstrip("/").split("/")
    if parts[0] != change or way[-1] != change or len(way) < 3 or way[0]:
        raise ValueError(f"{'/'.join(parts)!r} is no operation of {change!r} in the run folder {folder!r}")
    for part in (*parts, way[-2]):
        if not is_part(part):
            raise ValueError(f"{part!r} cannot be part of a path")
    return Place("/".join([*way, "jobs", *parts[1:]]), way[-2])


def parse_result(out: bytes) -> tuple[int, bytes, bytes] | None:
    """Exit code, output and error output of a job, from what job.sh printed; None if the result is not there."""
    at = 0
    while True:
        line, line_break, _ = out[at:].partition(b"\n") if at < len(out) else (b"", b"", b"")
        if not line_break:
            return None
        at += len(line) + 1
        if line.startswith(b"result\t"):
            break
    _, code, out_size, err_size = line.split(b"\t")
    middle = at + int(out_size)
    end = middle + int(err_size)
    if end != len(out):
        return None
    return int(code), out[at:middle], out[middle:end]
