"""The plan as a file: written by `plan -o plan.json`, read by `start --plan plan.json`.

The file holds what `plan -o json` shows: masked diffs, no secret. What is read is untrusted: it is bounded, of a known
version, and equal to its own digests. A run gets nothing of it but digests, with which it compares its own plan.
"""

from __future__ import annotations

import hashlib
import json
from datetime import datetime
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from cli.output import replace_file
from model.errors import PlanFileError
from model.fleet.bounds import printable, read_bounded
from model.fleet.spec import FleetSpec
from model.plan import ApprovedPlan, Plan, approved, bind
from model.serialization import plain

VERSION = 1
"""Of the format. Another one is refused: a plan is made again in a minute."""
LARGEST = 64 * 1024 * 1024
"""Bytes. A server takes about 10 KiB, its diff included."""
_KIND = "komodo-upgrade plan"
_HINT = "write a new one: komodo-upgrade plan -o plan.json"


def write(path: Path, plan: Plan, found_at: datetime) -> None:
    """Write the file at once. Raises UpgradeError."""
    content = plain(plan)
    document = {
        "kind": _KIND,
        "version": VERSION,
        "fleet": plan.fleet,
        "target": plan.target,
        "found_at": found_at.isoformat(),
        "digest": plan.digest,
        "sha256": _digest(content),
        "plan": content,
    }
    replace_file(path, (json.dumps(document, indent=1) + "\n").encode())


def read(path: Path, fleet: FleetSpec) -> ApprovedPlan:
    """What the plan of this file allows. Raises PlanFileError."""
    document = _document(path)
    content = document.get("plan")
    if document.get("sha256") != _digest(content):
        raise _refused(path, "its plan was changed after it was written: its sha256 is another one")
    try:
        plan = _PLAN.validate_python(content)
    except (ValidationError, RecursionError, OverflowError):
        raise _refused(path, "its plan cannot be read") from None
    if _digest(plain(plan)) != document["sha256"]:
        raise _refused(path, "its plan holds what this release does not know")
    if not plan.digest or (bind(plan).digest, document.get("digest")) != (plan.digest, plan.digest):
        raise _refused(path, "its plan was changed after it was written: the plan's digest is another one")
    if plan.fleet != fleet.name:
        raise _refused(path, f"it is a plan of {printable(plan.fleet)}, not of {fleet.name}")
    if plan.refusals:
        raise _refused(path, "the plan was refused when it was made")
    return approved(plan)


_PLAN: TypeAdapter[Plan] = TypeAdapter(Plan)


def _document(path: Path) -> dict[str, Any]:
    try:
        data = read_bounded(path, LARGEST)
    except OSError as error:
        raise PlanFileError(f"{path}: {error.strerror}", hint=_HINT) from None
    except ValueError as error:
        raise PlanFileError(f"{path} {error}", hint=_HINT) from None
    try:
        document = json.loads(data, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        raise _refused(path, "it is no JSON document") from None
    if not isinstance(document, dict) or document.get("kind") != _KIND:
        raise _refused(path, "it is no plan of komodo-upgrade")
    if document.get("version") != VERSION:
        raise _refused(path, f"its format is {printable(document.get('version'), 20)}, this release reads {VERSION}")
    return document


def _no_constant(name: str) -> float:
    raise ValueError(name)


def _digest(content: Any) -> str:
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _refused(path: Path, why: str) -> PlanFileError:
    return PlanFileError(f"{path}: {why}", residue="nothing was started", hint=_HINT)
