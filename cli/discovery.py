"""discover: the fleet file from what Core knows. Surveys run on the worker; the file is written here."""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import click

from cli.output import bad, careful, data, faint, good, on_terminal, prompting, replace_file, say, strong, wants_json
from model.errors import FleetFileError, UpgradeError
from model.fleet.bounds import read_text
from model.fleet.discovery import ListServers, Source
from model.fleet.file import parse
from model.fleet.merge import Change, Entry, Merged, merged, quoted
from model.fleet.values import RELEASES
from model.text.outside import terminal

if TYPE_CHECKING:
    from model.fleet.discovery import CoreServers
    from model.fleet.spec import FleetSpec

WRITTEN, CHANGES = 0, 5
STDOUT = "-"
_HEAD = """\
# Written by `komodo-upgrade discover`; `komodo-upgrade init -` shows every setting. Lines that begin with "# discover:"
# belong to that command, which writes them again; everything else stays as you write it.
"""
_SHOWN = {Change.ADDED: ("+", good), Change.GONE: ("-", bad), Change.LEFT_OUT: ("!", careful)}


async def discover(
    path: str, source: str, new: Mapping[str, str | None], *, timeout: timedelta | None, dry_run: bool, yes: bool
) -> int:
    """The command; returns its exit code. `new`: the options that describe a new file."""
    from cli.session import open_session
    from service.requests import PATIENCE, find_agents, list_servers

    file = _file(path)
    before = _existing(file, path, new)
    text = _first_text(new) if before is None else before
    fleet = parse(text, file)
    origin = _source(fleet, source)
    session = await open_session()
    await session.require_worker()
    await session.share_secrets(fleet)
    patience = timeout or PATIENCE
    say(f"reading the servers of Core from its {origin.value} …")
    core = await list_servers(session.client, ListServers(fleet=fleet, source=origin), timeout=patience, say=say)
    if not core.listed:
        raise UpgradeError(core.problem, host="core", residue="nothing was written", hint=core.hint)
    draft = merged(text, file, core, {})
    say(f"surveying {len(draft.to_survey)} {'host' if len(draft.to_survey) == 1 else 'hosts'} …")
    everyone = parse(draft.text, file)
    await session.share_secrets(everyone)  # the embedded worker reaches only the hosts of fleets that it was given
    agents = await find_agents(session.client, everyone, draft.to_survey, timeout=patience, say=say)
    found = merged(text, file, core, {agent.name: agent for agent in agents})
    for line in _summary(core, found.entries):
        say(line)
    diff = "" if before is None else "\n".join(_diff(before, found.text))
    if diff and not wants_json():
        click.echo(terminal(diff))
    written = path != STDOUT and not dry_run and _write(file, before, found.text, yes=yes)
    shown = path if written else found.text.rstrip("\n")
    if wants_json() or before is None:
        data(_as_data(file, path, origin, core, found, diff=diff, written=written), shown)
    if written:
        say(f"wrote {path}; next: `komodo-upgrade check {path}`")
    elif before == found.text:
        say(f"{path} has every Server that Core knows: nothing to change")
    elif before is not None:
        say(f"{path} was not changed; --yes writes the changes")
    return CHANGES if diff and not written else WRITTEN


def _file(path: str) -> Path:
    return Path("fleet.toml" if path == STDOUT else path).expanduser().absolute()


def _existing(file: Path, path: str, new: Mapping[str, str | None]) -> str | None:
    """The file's text; None: it is to be written. Raises UsageError for options that do not fit."""
    given = [f"--{name.replace('_', '-')}" for name, value in new.items() if value is not None]
    if path != STDOUT and os.path.lexists(file):
        if given:
            raise click.UsageError(f"{path} exists: {given[0]} is for a new file. Edit [fleet], [ssh] and [core] there")
        return read_text(file, path)
    if not new.get("core") and not new.get("url"):
        raise click.UsageError(f"{path} does not exist: --core names the host of Core, or --url its address")
    return None


def _first_text(new: Mapping[str, str | None]) -> str:
    """A fleet file without servers. Its values are checked when it is parsed."""
    host = new.get("core") or urlsplit(new.get("url") or "").hostname or ""
    core = {"host": host} | {key: new.get(key) for key in ("url", "api_key_env", "api_secret_env")}
    tables: dict[str, dict[str, str | None]] = {
        "fleet": {"name": new.get("name") or "prod", "target": RELEASES[-1]},
        "ssh": {key: new.get(key) for key in ("user", "sudo")},
        "core": core,
    }
    text = _HEAD
    for name, keys in tables.items():
        lines = [f"{key} = {quoted(value)}\n" for key, value in keys.items() if value]
        text += "".join(["\n", f"[{name}]\n", *lines]) if lines else ""
    return text


def _source(fleet: FleetSpec, wanted: str) -> Source:
    source = Source(wanted) if wanted else Source.API if fleet.core.api_key else Source.DATABASE
    if source is Source.API and not fleet.core.api_key:
        raise click.UsageError("--from api needs an API key: --api-key-env and --api-secret-env, or those of [core]")
    return source


def _write(file: Path, before: str | None, text: str, *, yes: bool) -> bool:
    """Whether it was written. A new file is never written over one that appeared meanwhile."""
    if before == text:
        return False
    if before is None:
        try:
            with file.open("x", encoding="utf-8", newline="") as handle:
                handle.write(text)
        except OSError as error:
            raise FleetFileError(f"{file}: {error.strerror}", hint="name a path that you may write") from None
        return True
    if not yes:
        if not on_terminal() or wants_json():
            return False
        with prompting():
            if not click.confirm(f"write these changes to {file}?", err=True):
                return False
    if read_text(file, file) != before:
        raise UpgradeError(f"{file} was changed meanwhile; nothing was written", hint="repeat the command")
    replace_file(file.resolve(), text.encode())
    return True


# --- showing ----------------------------------------------------------------------------------------------------------


def _diff(before: str, after: str) -> list[str]:
    return list(difflib.unified_diff(before.splitlines(), after.splitlines(), "as it is", "as discovered", lineterm=""))


def _summary(core: CoreServers, entries: Sequence[Entry]) -> list[str]:
    lines = [f"{careful('!')} core: {core.problem}", faint(f"    → {core.hint}")] if core.problem else []
    for entry in entries:
        mark, colour = _SHOWN.get(entry.change, ("·", faint))
        kind = "" if entry.install.value == "auto" else f", {entry.install.value}"
        place = f" ({entry.host}{kind})" if entry.host else ""
        lines.append(f"{colour(mark)} {strong(entry.name)}{place}: {entry.change.value}")
        if entry.problem:
            lines.append(f"    {entry.problem}")
        if entry.hint:
            lines.append(faint(f"    → {entry.hint}"))
    return lines


def _as_data(
    file: Path, path: str, origin: Source, core: CoreServers, found: Merged, *, diff: str, written: bool
) -> dict[str, Any]:
    return {
        "path": "" if path == STDOUT else str(file),
        "written": written,
        "from": origin.value,
        "core": {"problem": core.problem, "hint": core.hint},
        "servers": [
            {
                "name": entry.name,
                "state": entry.change.value,
                "host": entry.host,
                "install": entry.install.value,
                "connection": entry.connection.value,
                "problem": entry.problem,
                "hint": entry.hint,
            }
            for entry in found.entries
        ],
        "diff": diff,
        "text": found.text,
    }
