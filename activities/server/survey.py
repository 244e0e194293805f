"""What the server activities read from a host: file digests, the agent's state, its journal. Reads only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from hosts.exec.script import Script, parse
from hosts.host import Host
from komodo.agent.unit import parse_show
from komodo.logs import RunLog, parse_run
from model.facts import ServerFacts

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
    """systemd's state of the agent at one time, and the journal of the requested run."""

    active: str
    restarts: int
    invocation: str
    """Of the present run."""
    result: str
    at: datetime
    """The host's time."""
    log: RunLog = field(default_factory=RunLog)


@dataclass(frozen=True, slots=True)
class AgentJournal:
    """What an agent has logged since it was started, and whether it runs."""

    log: RunLog
    runs: bool
    file_keys: Mapping[str, str] = field(default_factory=dict)
    """`file:` entries of core_public_keys → the key in that file."""

    def accepts(self, key: str) -> bool:
        """The running agent has loaded this key of Core."""
        pins = self.log.config.pins if self.log.config else ()
        return any(key in (pin, self.file_keys.get(pin)) for pin in pins)


async def file_facts(host: Host, *paths: str) -> dict[str, FileFacts]:
    """Digest, mode and owner of those that exist. Raises HostError."""
    done = await host.run(Script.load("komodo.sh", "server/file_facts.sh", *paths), timeout=READ)
    return facts_of(parse(done.text))


def facts_of(output: Mapping[str, list[str]]) -> dict[str, FileFacts]:
    """The same from the output of file_facts.sh."""
    found = {}
    for line in output.get("file", []):
        path, sha256, mode, owner = line.rsplit("\t", 3)
        found[path] = FileFacts(path, sha256, mode.zfill(4), owner)
    return found


def scope_of(facts: ServerFacts) -> str:
    """Whose service manager the agent's unit belongs to, as the scripts call it: "user" or "" (the system's)."""
    return "user" if facts.user_unit else ""


async def agent_state(host: Host, unit: str, invocation: str = "", *, scope: str = "") -> AgentState:
    """The unit's state, and the journal of one of its runs (of the present one without `invocation`)."""
    journal = Script.load("komodo.sh", "server/agent_journal.sh", unit=unit, invocation=invocation, scope=scope)
    done = await host.run(journal, timeout=READ)
    return state_of(parse(done.text))


def state_of(output: Mapping[str, list[str]]) -> AgentState:
    """The same, from the output of agent_journal.sh."""
    shown = parse_show("\n".join(output.get("show", [])))

    def one(key: str) -> str:
        return next(iter(shown.get(key, [])), "")

    now = next(iter(output.get("now", [])), "")
    return AgentState(
        active=one("ActiveState"),
        restarts=int(one("NRestarts")) if one("NRestarts").isdigit() else 0,
        invocation=one("InvocationID"),
        result=one("Result"),
        at=datetime.fromtimestamp(int(now), UTC) if now.isdigit() else datetime.now(UTC),
        log=parse_run("\n".join(output.get("line", []))),
    )
