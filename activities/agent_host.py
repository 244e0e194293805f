"""What the server activities read from a host: file digests, the agent's state, its journal. Reads only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from hosts.host import Host
from hosts.script import Script, parse
from komodo.logs import RunLog, parse_run
from komodo.unit import parse_show

READ = timedelta(seconds=60)


@dataclass(frozen=True, slots=True)
class FileFacts:
    """One file on a host."""

    path: str
    sha256: str
    mode: str
    owner: str


@dataclass(frozen=True, slots=True)
class AgentState:
    """systemd's view of the agent at one moment, and what the asked run said."""

    active: str
    restarts: int
    invocation: str
    """Of the run that systemd has now."""
    result: str
    at: datetime
    """Host's time."""
    log: RunLog = field(default_factory=RunLog)


async def file_facts(host: Host, *paths: str) -> dict[str, FileFacts]:
    """Digest, mode and owner of those that exist. Raises HostError."""
    done = await host.run(Script.load("komodo.sh", "file_facts.sh"), *paths, timeout=READ)
    return facts_of(parse(done.text))


def facts_of(said: Mapping[str, list[str]]) -> dict[str, FileFacts]:
    """The same from what file_facts.sh said."""
    found = {}
    for line in said.get("file", []):
        path, sha256, mode, owner = line.rsplit("\t", 3)
        found[path] = FileFacts(path, sha256, mode.zfill(4), owner)
    return found


async def agent_state(host: Host, unit: str, invocation: str = "") -> AgentState:
    """The unit's state, and the journal of one of its runs (of the present one without `invocation`)."""
    done = await host.run(Script.load("komodo.sh", "agent_journal.sh"), unit, invocation, timeout=READ)
    return state_of(parse(done.text))


def state_of(said: Mapping[str, list[str]]) -> AgentState:
    """The same from what agent_journal.sh said."""
    shown = parse_show("\n".join(said.get("show", [])))

    def one(key: str) -> str:
        return next(iter(shown.get(key, [])), "")

    now = next(iter(said.get("now", [])), "")
    return AgentState(
        active=one("ActiveState"),
        restarts=int(one("NRestarts")) if one("NRestarts").isdigit() else 0,
        invocation=one("InvocationID"),
        result=one("Result"),
        at=datetime.fromtimestamp(int(now), UTC) if now.isdigit() else datetime.now(UTC),
        log=parse_run("\n".join(said.get("line", []))),
    )
