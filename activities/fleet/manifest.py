"""manifest.json of a run folder: the facts of the plan, so that an upgrade can be undone without Temporal's history.

The format has a version. A reader may find folders of an older or a newer release, years later and on another machine.
It refuses formats that it does not know; the folder's own restore.sh works nevertheless.
"""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime
from functools import cache
from typing import Any

from pydantic import TypeAdapter, ValidationError

from model.errors import HostError
from model.facts import Backup, CoreFacts, DumpFacts, SavedFile, ServerFacts
from model.serialization import plain

FORMAT = 1
"""Version of manifest.json and restore.list. restore.sh refuses any other."""
DUMP_RECORD = "final-dump.json"
"""The content of the final dump, recorded before the new Core is started."""


def facts_of(facts: CoreFacts | ServerFacts) -> dict[str, Any]:
    """The facts that Core's or a server's manifest holds: without secrets and diffs."""
    bare = replace(facts, findings=(), sources=(), edits=tuple(replace(e, diff="") for e in facts.edits))
    found: dict[str, Any] = plain(bare)
    return found


def read(data: bytes, path: str, host: str) -> dict[str, Any]:
    """The manifest as it was written. Raises HostError for an unknown format, or for a file that is not a manifest."""
    try:
        found = json.loads(data)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise HostError(f"{path} is damaged: it is no JSON object", host=host, hint=_manual_command(path))
    if found.get("format") != FORMAT:
        raise HostError(
            f"{path} has format {found.get('format')}, this version knows {FORMAT}",
            host=host,
            hint=f"use the version of komodo-upgrade that made it; {_manual_command(path)}",
        )
    return found


def core_facts(found: dict[str, Any], path: str, host: str) -> CoreFacts:
    """Raises HostError."""
    facts: CoreFacts = _read(CoreFacts, found.get("facts"), path, host)
    return facts


def server_facts(found: dict[str, Any], path: str, host: str) -> ServerFacts:
    """Raises HostError."""
    facts: ServerFacts = _read(ServerFacts, found.get("facts"), path, host)
    return facts


def dump(data: bytes, path: str, host: str) -> DumpFacts:
    """Raises HostError."""
    try:
        found = json.loads(data)
    except ValueError:
        found = None
    facts: DumpFacts = _read(DumpFacts, found, path, host)
    return facts


def server_backup(found: dict[str, Any]) -> Backup:
    """What back_up_server returned when it made this manifest."""
    fields = set(SavedFile.__dataclass_fields__)
    return Backup(
        host=found["host"],
        folder=found["folder"],
        files=tuple(SavedFile(**{k: v for k, v in one.items() if k in fields}) for one in found["files"]),
        restore_command=found["restore_command"],
        taken_at=datetime.fromisoformat(found["taken_at"]),
        notes=tuple(found["notes"]),
    )


def core_backup(found: dict[str, Any], host: str) -> Backup:
    """The same for Core's."""
    folder = found["folder"]
    files = tuple(
        SavedFile(path=one["path"], saved_as=f"{folder}/{one['saved']}", sha256=one["sha256"]) for one in found["files"]
    )
    return Backup(
        host=host,
        folder=folder,
        files=files,
        restore_command=found["restore_command"],
        taken_at=datetime.fromisoformat(found["taken_at"]),
    )


def _read(kind: type, found: Any, path: str, host: str) -> Any:
    try:
        return _adapter(kind).validate_python(found)
    except ValidationError as error:
        where = ".".join(str(part) for part in error.errors()[0]["loc"]) or "its facts"
        raise HostError(
            f"{path} is incomplete: {where} cannot be read", host=host, hint=_manual_command(path)
        ) from None


@cache
def _adapter(kind: type) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def _manual_command(path: str) -> str:
    folder = path.removesuffix("/manifest.json").removesuffix(f"/{DUMP_RECORD}")
    return f"or by hand on that host: sh {folder}/restore.sh --dry-run, then without --dry-run"
