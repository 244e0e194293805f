"""`plan --patch DIR`: the edits of files that lie in a git work tree, as patches for the repository that owns them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from cli.output import replace_file
from model.errors import UpgradeError
from model.facts import PlannedEdit
from model.fleet.spec import slug
from model.plan import Plan
from model.text.outside import single_line

_NAME = re.compile(r"[^\x00-\x1f\x7f\"\\]+")
"""Other names would have to be quoted for git."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Patch:
    """The edits of one repository on one host."""

    host: str
    """A server's name, or "core"."""
    repository: str
    edits: tuple[PlannedEdit, ...]
    left_out: tuple[PlannedEdit, ...]
    """Edits that have to be made by hand, because a line that changes holds a secret or Core's future key."""


def patches(plan: Plan) -> tuple[Patch, ...]:
    """One patch for each repository of each host."""
    hosts: list[tuple[str, tuple[PlannedEdit, ...]]] = [("core", plan.core.edits)]
    # What is edited in Core's own project is among Core's edits.
    hosts += [(s.name, s.edits) for s in plan.servers if not s.in_core_project and not s.current]
    return tuple(patch for host, edits in hosts for patch in _of_host(host, edits))


def _of_host(host: str, edits: tuple[PlannedEdit, ...]) -> Iterator[Patch]:
    for repository in dict.fromkeys(edit.repository for edit in edits if edit.repository):
        own = [edit for edit in edits if edit.repository == repository]
        given = tuple(edit for edit in own if edit.hunks and _has_plain_name(edit.path))
        yield Patch(
            host=host, repository=repository, edits=given, left_out=tuple(edit for edit in own if edit not in given)
        )


def _has_plain_name(path: str) -> bool:
    return bool(_NAME.fullmatch(path)) and ".." not in PurePosixPath(path).parts


def write(folder: Path, plan: Plan) -> tuple[tuple[Path, Patch], ...]:
    """Write a file for each patch with edits. Raises UpgradeError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UpgradeError(f"{folder}: {error.strerror}", hint="name a folder that you may write") from None
    written = []
    used: dict[str, int] = {}
    for patch in patches(plan):
        name = slug(patch.host)
        used[name] = number = used.get(name, 0) + 1
        path = folder / (f"{name}.patch" if number == 1 else f"{name}-{number}.patch")
        if patch.edits:
            replace_file(path, render(patch, plan, path.name).encode())
        written.append((path, patch))
    return tuple(written)


def render(patch: Patch, plan: Plan, name: str) -> str:
    """What `git apply --unidiff-zero` takes. Git ignores the lines before the first file."""
    where = f"{patch.repository} on {patch.host}"
    lines = [f"Komodo {plan.fleet} to {plan.target}: {single_line(where)}, plan {plan.digest}"]
    lines += [f"In that repository: git apply --unidiff-zero {name}", ""]
    for edit in patch.edits:
        path = PurePosixPath(edit.path).relative_to(patch.repository)
        lines += [f"sha256 before: {edit.base_sha256}", f"sha256 after:  {edit.result_sha256}"]
        lines += [f"diff --git a/{path} b/{path}", f"--- a/{path}", f"+++ b/{path}"]
        lines.append("".join(edit.hunks).removesuffix("\n"))
    return "\n".join(lines) + "\n"


def describe(written: Iterable[tuple[Path, Patch]]) -> Iterator[str]:
    """What was written, for a person."""
    found = tuple(written)
    if not found:
        yield "no patch was written: no file that would be edited lies in a git work tree"
    for path, patch in found:
        if patch.edits:
            names = ", ".join(edit.path for edit in patch.edits)
            yield f"wrote {path}: {names}; in {patch.repository}: git apply --unidiff-zero {path.name}"
        for edit in patch.left_out:
            why = "a line that changes could hold a secret"
            why = "it gets Core's key, which is known after the upgrade" if edit.with_key else why
            yield f"not in a patch: {edit.path} on {patch.host}: {why}"
