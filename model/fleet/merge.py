"""A fleet file's text with what `discover` found: servers are added, and notes are written. A person's text stays.

Lines are inserted, and no other line is written, so that every other byte stays as it is. The lines of a note
begin with `# discover:`; they belong to the command, which writes them again at its next run.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from model.errors import FleetFileError
from model.fleet.bounds import LARGEST, invisible, printable
from model.fleet.discovery import AgentOnHost, CoreServers, ListedServer
from model.fleet.file import parse
from model.fleet.positions import find_lines
from model.fleet.spec import AgentInstall, Connection
from model.fleet.tables import ServerTable
from model.text.outside import single_line

NOTE = "# discover: "
_LONGEST_NOTE = 1000
"""Characters; a hint names an ssh command with its files."""
_NOT_IN_FILE = 'enter its host, and take "# discover: " off these lines'


class Change(StrEnum):
    """What became of a Server."""

    ADDED = "added"
    KEPT = "kept"
    """It is in the file already."""
    GONE = "gone"
    """It is in the file, but Core does not know it."""
    DISABLED = "disabled"
    """In Komodo; it needs no entry."""
    WITH_CORE = "with-core"
    """Its agent is part of Core's project and is upgraded with Core; it needs no entry."""
    LEFT_BEHIND = "left-behind"
    """The file names it in leave_behind."""
    LEFT_OUT = "left-out"
    """It cannot be written; a note says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One Server, in the file or in Core."""

    name: str
    change: Change
    host: str = ""
    install: AgentInstall = AgentInstall.AUTO
    connection: Connection = Connection.AUTO
    user: str = ""
    problem: str = ""
    """What is missing."""
    hint: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Merged:
    """The new text, and what became of every Server."""

    text: str
    entries: tuple[Entry, ...]
    to_survey: tuple[str, ...]
    """Servers whose agents are to be found: new ones, and those with a note."""


def merged(text: str, path: Path, core: CoreServers, agents: Mapping[str, AgentOnHost]) -> Merged:
    """The file with these findings. Without `agents`, the new servers are in it for their survey.

    Raises FleetFileError where the text cannot be extended.
    """
    bare = _without_notes(text)
    fleet = parse(bare, path)
    raw = tomllib.loads(bare)
    tables: list[dict[str, Any]] = raw.get("server", [])
    noted = _noted(text)
    known = {server.name: server for server in core.servers}
    here = [
        _present(table, known.get(table["name"]), core, agents.get(table["name"]), was_noted=table["name"] in noted)
        for table in tables
    ]
    rest = _absent(core, fleet.leave_behind, tables, agents, gone=[e.name for e in here if e.change is Change.GONE])
    added = [entry for entry in rest if entry.change is Change.ADDED]
    new = _extended(bare, core, tables, here, rest)
    _require_same(raw, new, path, added=len(added))
    to_survey = (*(e.name for e in here if e.change is Change.KEPT and e.name in noted), *(e.name for e in added))
    entries = sorted((*here, *rest), key=lambda e: e.name)
    return Merged(text=new, entries=tuple(entries), to_survey=to_survey)


def server_table(entry: Entry) -> list[str]:
    """Lines of one [[server]] table."""
    return ["[[server]]", *_notes_of(entry), *_assignments(_keys_of(entry))]


def quoted(text: str) -> str:
    """A TOML string. The text holds no control characters, so that JSON's form is TOML's."""
    return json.dumps(text, ensure_ascii=False)


# --- what becomes of each server --------------------------------------------------------------------------------------


def _present(
    table: Mapping[str, Any],
    known: ListedServer | None,
    core: CoreServers,
    agent: AgentOnHost | None,
    *,
    was_noted: bool,
) -> Entry:
    """A server that is in the file."""
    name, host = table["name"], table["host"]
    if known is None:
        problem = "Komodo has no Server of this name any more"
        return Entry(name=name, host=host, change=Change.GONE, problem=problem, hint="remove this table, or correct it")
    if core.agent_server and name == core.agent_server:
        problem = "its agent is part of Core's project and is upgraded with Core"
        return Entry(name=name, host=host, change=Change.WITH_CORE, problem=problem, hint="remove this table")
    if not known.enabled:
        problem = "it is disabled in Komodo"
        hint = "enable it there, or remove this table"
        return Entry(name=name, host=host, change=Change.DISABLED, problem=problem, hint=hint)
    entry = Entry(name=name, host=host, change=Change.KEPT, connection=_connection(known))
    return _with_agent(entry, agent) if was_noted else entry


def _absent(
    core: CoreServers,
    leave_behind: Sequence[str],
    tables: Sequence[Mapping[str, Any]],
    agents: Mapping[str, AgentOnHost],
    *,
    gone: Sequence[str],
) -> list[Entry]:
    """Servers of Core that are not in the file, by name."""
    taken = {table["name"]: "" for table in tables}
    hosts = {t["host"]: t["name"] for t in tables if not {"port", "jump", "user", "unit"} & t.keys()}
    found = []
    for known in sorted(core.servers, key=lambda server: server.name):
        if known.name in taken:
            continue
        taken[known.name] = ""
        if core.agent_server and known.name == core.agent_server:
            found.append(Entry(name=known.name, change=Change.WITH_CORE))
        elif known.name in leave_behind:
            found.append(Entry(name=known.name, change=Change.LEFT_BEHIND))
        elif not known.enabled:
            found.append(Entry(name=known.name, change=Change.DISABLED))
        else:
            entry = _added(known, hosts, gone)
            if entry.change is Change.ADDED:
                hosts[known.host] = known.name
                entry = _with_agent(entry, agents.get(known.name))
            found.append(entry)
    return found


def _added(known: ListedServer, hosts: Mapping[str, str], gone: Sequence[str]) -> Entry:
    host = known.host
    entry = Entry(name=known.name, change=Change.LEFT_OUT, host=host, connection=_connection(known))
    if not _fits(known.name, "host.example.net"):
        problem = "its name holds invisible characters, begins or ends with a blank, or is too long"
        return _left_out(entry, problem, "rename it in Komodo")
    if not known.address:
        return _left_out(entry, "Komodo has no address of it, because its agent connects to Core", _NOT_IN_FILE)
    if not _fits(known.name, host):
        return _left_out(entry, f"its address {known.address} names no host", _NOT_IN_FILE)
    if host in hosts and hosts[host] in gone:
        problem = f"Komodo does not know {hosts[host]}, whose host {host} this is: was it renamed?"
        return _left_out(entry, problem, f"name = {quoted(known.name)} in the table of {hosts[host]}")
    if host in hosts:
        problem = f"its address leads to the host of {hosts[host]}, {host}"
        return _left_out(entry, problem, f"disable one of them in Komodo, or add unit or port, and {_NOT_IN_FILE}")
    return Entry(name=known.name, change=Change.ADDED, host=host, connection=entry.connection)


def _left_out(entry: Entry, problem: str, hint: str) -> Entry:
    host = entry.host if _fits("server", entry.host) else ""
    return Entry(
        name=entry.name, change=entry.change, host=host, connection=entry.connection, problem=problem, hint=hint
    )


def _with_agent(entry: Entry, agent: AgentOnHost | None) -> Entry:
    if agent is None:
        return entry
    problem = agent.problem if agent.reached or not agent.problem else f"not surveyed: {agent.problem}"
    return Entry(
        name=entry.name,
        change=entry.change,
        host=entry.host,
        connection=entry.connection,
        install=agent.install,
        user=agent.user if _fits_user(agent.user) else "",
        problem=problem,
        hint=agent.hint,
    )


def _connection(known: ListedServer) -> Connection:
    return Connection.INBOUND if known.address else Connection.OUTBOUND


def _fits(name: str, host: str) -> bool:
    """Whether a fleet file may hold these values."""
    return _is_valid({"name": name, "host": host})


def _fits_user(user: str) -> bool:
    return bool(user) and _is_valid({"name": "server", "host": "host", "user": user})


def _is_valid(table: dict[str, str]) -> bool:
    try:
        ServerTable.model_validate(table)
    except ValidationError:
        return False
    return not any(invisible(table))


# --- the text ---------------------------------------------------------------------------------------------------------


def _keys_of(entry: Entry) -> dict[str, str]:
    """The keys of a new table."""
    return {"name": entry.name, "host": entry.host, **_agent_keys(entry), "connection": entry.connection.value}


def _agent_keys(entry: Entry) -> dict[str, str]:
    keys = {} if entry.install is AgentInstall.AUTO else {"install": entry.install.value}
    if entry.install is AgentInstall.SYSTEMD_USER and entry.user:
        keys |= {"user": entry.user, "sudo": "none"}
    return keys


def _assignments(keys: Mapping[str, str]) -> list[str]:
    return [f"{key} = {quoted(value)}" for key, value in keys.items()]


def _notes_of(entry: Entry) -> list[str]:
    return [_note(entry.problem), *([_note(f"next: {entry.hint}")] if entry.hint else [])] if entry.problem else []


def _note(text: str) -> str:
    return NOTE + single_line(" ".join(text.split()), _LONGEST_NOTE)


def _extended(
    bare: str, core: CoreServers, tables: Sequence[Mapping[str, Any]], here: Sequence[Entry], rest: Sequence[Entry]
) -> str:
    """The text with notes, with what is now known of its servers, with new servers and with the last notes."""
    lines = bare.splitlines(keepends=True)
    end = "\r\n" if bare.count("\r\n") * 2 > bare.count("\n") else "\n"
    at = find_lines(bare)
    more: dict[int, list[str]] = {}
    if core.problem and ("core",) in at:
        hint = [_note(f"next: {core.hint}")] if core.hint else []
        more[at["core",]] = [_note(f"not surveyed: {core.problem}"), *hint]
    for number, (table, entry) in enumerate(zip(tables, here, strict=True)):
        header = at.get(("server", number))
        if header is None:
            continue
        more.setdefault(header, []).extend(_notes_of(entry))
        missing = {key: value for key, value in _agent_keys(entry).items() if key not in table}
        if missing and "install" in missing:
            more.setdefault(at["server", number, "host"], []).extend(_assignments(missing))
    for line in sorted(more, reverse=True):
        lines[line:line] = [new + end for new in more[line]]
    blocks = [server_table(entry) for entry in rest if entry.change is Change.ADDED]
    blocks += [notes] if (notes := _last_notes(rest)) else []
    if not blocks:
        return "".join(lines)
    body = "".join(lines).rstrip("\r\n") + end
    return body + "".join(end + "".join(line + end for line in block) for block in blocks)


def _last_notes(rest: Iterable[Entry]) -> list[str]:
    rest = list(rest)
    lines = []
    for entry in rest:
        if entry.change is Change.LEFT_OUT:
            lines.append(_note(f"{printable(entry.name)} is not in this file: {entry.problem}"))
            lines.append(_note(f"next: {entry.hint}"))
            if _NOT_IN_FILE in entry.hint:
                lines += [NOTE + line for line in ("[[server]]", *_assignments(_keys_of(entry)))]
    for change, what in (
        (Change.WITH_CORE, "upgraded with Core, because its agent is part of Core's project"),
        (Change.DISABLED, "disabled in Komodo, and not in this file"),
    ):
        lines += [_note(f"{what}: {printable(entry.name)}") for entry in rest if entry.change is change]
    return lines


def _without_notes(text: str) -> str:
    """The text without the lines of this command. Lines that look like a note inside of a value stay."""
    lines = text.splitlines(keepends=True)
    kept = [line for line in lines if not line.startswith(NOTE)]
    if len(kept) == len(lines):
        return text
    bare = "".join(kept)
    if text.rstrip().splitlines()[-1].startswith(NOTE):
        bare = bare.rstrip("\r\n") + ("\r\n" if text.endswith("\r\n") else "\n")
    try:
        return bare if tomllib.loads(bare) == tomllib.loads(text) else text
    except ValueError:
        return text


def _noted(text: str) -> frozenset[str]:
    """Names of the servers whose tables have a note."""
    lines = text.splitlines()
    at = find_lines(text)
    try:
        tables = tomllib.loads(text).get("server", [])
    except ValueError:
        return frozenset()
    headers = ((table, at.get(("server", number))) for number, table in enumerate(tables))
    return frozenset(
        t["name"] for t, line in headers if line and any(x.startswith(NOTE) for x in lines[line : line + 1])
    )


def _require_same(raw: dict[str, Any], text: str, path: Path, *, added: int) -> None:
    """The new text says what the old one says, and has the new tables. Raises FleetFileError."""
    if len(text.encode()) > LARGEST:
        raise FleetFileError(
            f"{path} would be larger than {LARGEST // 1024} KiB",
            residue="it was not changed",
            hint="are most hosts not reached? Correct [ssh] first: each of them has a note",
        )
    try:
        parse(text, path)
        now = tomllib.loads(text)
    except (FleetFileError, ValueError):
        now = {}
    old, new = raw.get("server", []), now.get("server", [])
    same = {**raw, "server": old} == {**now, "server": [_known(t, o) for t, o in zip(new, old, strict=False)]}
    if not now or not same or len(new) != len(old) + added:
        raise FleetFileError(
            f"{path} cannot be extended safely",
            residue="it was not changed",
            hint="write each server as a [[server]] table; or discover into a new file, and compare",
        )


def _known(table: Mapping[str, Any], old: Mapping[str, Any]) -> dict[str, Any]:
    """The table without the keys that are filled in."""
    return {key: value for key, value in table.items() if key in old or key not in ("install", "user", "sudo")}
