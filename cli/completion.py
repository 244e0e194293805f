"""What a shell offers after Tab: fleets, servers and gates. Asks Temporal only where it already runs; never fails."""

from __future__ import annotations

import asyncio
import contextlib
import os
import tomllib
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

from cli.target import DEFAULT, ENV
from model.errors import UpgradeError

_LARGEST = 1 << 20
_SECONDS = 2.0
"""A person waits at the prompt."""
_MOST = 200


def fleet_files(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:  # noqa: ARG001
    """Fleet files by their path."""
    found = [CompletionItem(path, help=name) for path, name in _files(incomplete)]
    # The shell's own completion of files leads into other folders.
    return found or [CompletionItem(incomplete, type="file")]


def fleets(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Fleet files, and the names of fleets that Temporal knows."""
    known = [CompletionItem(name, help=state) for name, state in _running(incomplete)]
    return [*known, *fleet_files(ctx, param, incomplete)]


def fleets_and_servers(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """A fleet, then servers of it; without a fleet, those of the default fleet file."""
    given = _given(ctx)
    named = [CompletionItem(name) for name in _servers(given) if name.startswith(incomplete) and name not in given]
    return [*named, *([] if given or (named and incomplete) else fleets(ctx, param, incomplete))]


def servers(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:  # noqa: ARG001
    """Servers of the fleet file, for options."""
    return [CompletionItem(name) for name in _servers(_given(ctx)) if name.startswith(incomplete)]


def gates(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:  # noqa: ARG001
    """The gate that the fleet waits at."""
    given = _given(ctx)
    name = _read(given[0] if given else _default()).get("fleet", {}).get("name") or (given[0] if given else "")
    gate, question = _ask(lambda client: _gate(client, str(name)), ("", "")) if name else ("", "")
    return [CompletionItem(gate, help=question)] if gate and gate.startswith(incomplete) else []


def _given(ctx: click.Context) -> tuple[str, ...]:
    """The arguments before it. Before an option's value, click has not assigned them yet."""
    file = ctx.params.get("fleet_file")
    return tuple(ctx.params.get("arguments") or ([file] if file else ctx.args))


# --- fleet files ------------------------------------------------------------------------------------------------------


def _default() -> str:
    return os.environ.get(ENV) or DEFAULT


def _read(path: str) -> dict[str, Any]:
    """The TOML tables of a file; none if it is no fleet file. It may be half written."""
    try:
        file = Path(path).expanduser()
        if not file.is_file() or file.stat().st_size > _LARGEST:
            return {}
        tables = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return tables if isinstance(tables.get("fleet"), dict) else {}


def _files(incomplete: str) -> list[tuple[str, str]]:
    folder, start = os.path.split(incomplete)
    with contextlib.suppress(OSError):
        names = sorted(p.name for p in Path(folder or ".").expanduser().glob("*.toml"))
        paths = [str(Path(folder) / name) for name in names[:_MOST] if name.startswith(start)]
        return [(path, str(tables["fleet"].get("name", ""))) for path in paths if (tables := _read(path))]
    return []


def _servers(given: tuple[str, ...]) -> list[str]:
    tables = (_read(given[0]) if given else {}) or _read(_default())
    listed = tables.get("server")
    if not isinstance(listed, list):
        return []
    return [str(server["name"]) for server in listed if isinstance(server, dict) and server.get("name")]


# --- Temporal ---------------------------------------------------------------------------------------------------------


def _running(incomplete: str) -> list[tuple[str, str]]:
    return [found for found in _ask(_fleets, []) if found[0].startswith(incomplete)]


async def _fleets(client: Any) -> list[tuple[str, str]]:
    from service.upgrades import runs

    found: dict[str, str] = {}
    async for run in runs(client):
        found.setdefault(run.fleet, run.status.replace("_", " "))
        if len(found) == _MOST:
            break
    return list(found.items())


async def _gate(client: Any, fleet: str) -> tuple[str, str]:
    from service.client import Upgrade

    gate = (await Upgrade(client, fleet).progress()).gate
    return (gate.id, gate.question) if gate else ("", "")


def _ask(question: Any, otherwise: Any) -> Any:
    """The answer of Temporal; `otherwise` where none runs, or none answers in time."""

    async def ask() -> Any:
        client = await _client()
        return otherwise if client is None else await question(client)

    async def in_time() -> Any:
        return await asyncio.wait_for(ask(), _SECONDS)

    from temporalio.service import RPCError

    try:
        return asyncio.run(in_time())
    except (TimeoutError, UpgradeError, RPCError, RuntimeError, OSError):
        return otherwise


async def _client() -> Any:
    from service.connection import configured, connect
    from service.embedded import lifecycle
    from service.embedded.state import StateDir

    if settings := configured():
        return await connect(settings)
    state = StateDir()
    return await lifecycle.client(state, state.read()) if state.supervised() else None
