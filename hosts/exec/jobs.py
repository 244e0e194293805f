"""Where the state of a detached job is stored on a host, and what its starter (job.sh) prints."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime

_PART = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*")


@dataclass(frozen=True, slots=True)
class Place:
    """A job's folder, and the fleet that its lock is taken for."""

    path: str
    fleet: str


@dataclass(frozen=True, slots=True)
class Held:
    """Who holds a host's lock."""

    fleet: str
    """Its slug."""
    change: str
    since: str
    """UTC, as it was written."""
    used: datetime
    """By the last step. A lock expires thirty days after it."""
    job: str = ""
    """The folder of a job that runs right now; empty: none does."""
    expired: bool = False


def job_place(op: str, folder: str, change: str) -> Place:
    """`<change>/<target>/<attempt>/<step>` under the run folder `<state_dir>/<fleet>/<change>`."""
    parts = op.split("/")
    if len(parts) != 4:
        raise ValueError(f"not an operation id: {op!r}")
    return _place(parts, folder, change)


def invalidated_place(prefix: str, folder: str, change: str) -> Place:
    """The folder of an attempt's jobs, or of one job."""
    parts = prefix.strip("/").split("/")
    if len(parts) not in (2, 3, 4):
        raise ValueError(f"not the beginning of an operation id: {prefix!r}")
    return _place(parts, folder, change)


def is_part(text: str) -> bool:
    """Whether a text can be one part of a path, and a word of a lock file."""
    return bool(_PART.fullmatch(text))


def _place(parts: list[str], folder: str, change: str) -> Place:
    way = folder.rstrip("/").split("/")
    if parts[0] != change or way[-1] != change or len(way) < 3 or way[0]:
        raise ValueError(f"{'/'.join(parts)!r} is no operation of {change!r} in the run folder {folder!r}")
    for part in (*parts, way[-2]):
        if not is_part(part):
            raise ValueError(f"{part!r} cannot be part of a path")
    return Place("/".join([*way, "jobs", *parts[1:]]), way[-2])


@dataclass(frozen=True, slots=True)
class Result:
    """How a job ended, and what the script that followed it printed."""

    code: int
    out: bytes
    err: bytes
    after: bytes


def parse_result(out: bytes, nonce: str) -> Result | None:
    """What job.sh printed at the end of a job; None if it is missing or incomplete."""
    begin = re.compile(rb"(?:^|\n)result\t(\d+)\n").search(out)
    if not begin:
        return None
    printed, err_mark, rest = out[begin.end() :].partition(f"\n{nonce} err\n".encode())
    err, end_mark, after = rest.partition(f"\n{nonce} done\n".encode())
    if not err_mark or not end_mark:
        return None
    return Result(int(begin[1]), printed, err, after)
