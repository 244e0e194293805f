"""The rooms keep to their rules: arrows run downwards, workflows import almost nothing, files stay readable."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ROOMS = ("model", "hosts", "komodo", "activities", "workflows", "sandbox", "service", "cli")
MAY_IMPORT = {
    "model": {"model"},
    "hosts": {"hosts", "model"},
    "komodo": {"komodo", "model"},
    "activities": {"activities", "komodo", "hosts", "model"},
    "workflows": {"workflows", "model"},
    "sandbox": {"sandbox", "komodo", "model"},
}
"""Rooms that wire things together (service, cli, starter, worker) may import everything."""

NEVER = {
    "model": {"temporalio", "asyncssh", "httpx2", "motor", "click", "rich"},
    "hosts": {"temporalio", "httpx2", "motor", "click", "rich"},
    "komodo": {"temporalio", "asyncssh", "click", "rich"},
    "activities": {"asyncssh", "motor", "click", "rich"},
    "sandbox": {"temporalio", "motor", "click"},
}


def sources(room: str) -> list[Path]:
    return sorted((ROOT / room).rglob("*.py"))


def imported(path: Path) -> list[tuple[str, int]]:
    names = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names += [(alias.name.split(".")[0], node.lineno) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            names.append(((node.module or "").split(".")[0], node.lineno))
    return names


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_arrows_run_downwards(room: str) -> None:
    ours = {*ROOMS, "starter", "worker"}
    wrong = [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for path in sources(room)
        for name, line in imported(path)
        if (name in ours and name not in MAY_IMPORT[room]) or name in NEVER.get(room, set())
    ]
    assert not wrong, "\n".join(wrong)


def test_workflows_import_only_the_standard_library_temporal_and_the_model() -> None:
    allowed = {*sys.stdlib_module_names, "temporalio", "workflows", "model"}
    wrong = [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for path in sources("workflows")
        for name, line in imported(path)
        if name not in allowed
    ]
    assert not wrong, "\n".join(wrong)


def test_workflows_hold_no_sets() -> None:
    """Iterating a set in workflow code upgrades other servers after a crash: string hashes differ per process."""
    wrong = []
    for path in sources("workflows"):
        for node in ast.walk(ast.parse(path.read_text())):
            named = isinstance(node, ast.Name) and node.id in {"set", "frozenset"}
            if named or isinstance(node, ast.Set | ast.SetComp):
                wrong.append(f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 0)}")
    assert not wrong, f"sets in workflow code: {wrong}"


@pytest.mark.parametrize("room", [*ROOMS, "tests"])
def test_files_stay_readable(room: str) -> None:
    long = {str(p.relative_to(ROOT)): n for p in sources(room) if (n := len(p.read_text().splitlines())) > 420}
    assert not long, f"over 420 lines: {long}"


def test_every_room_says_what_it_is() -> None:
    silent = [r for r in ROOMS if not ast.get_docstring(ast.parse((ROOT / r / "__init__.py").read_text()))]
    assert not silent, f"rooms without a docstring: {silent}"
