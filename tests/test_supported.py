"""docs/supported.md promises what tests show: each test and each finding that it names exists."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from komodo.releases import NEWEST_KNOWN

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs/supported.md").read_text()
ROWS = [
    [cell.strip() for cell in line.strip().strip("|").split("|")] for line in PAGE.splitlines() if line.startswith("| ")
]


def functions(path: Path) -> set[str]:
    tree = ast.parse(path.read_text())
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


def test_every_test_that_is_named_exists() -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", PAGE)
    assert len(named) >= 20
    missing = [f"{path}::{name}" for path, name in named if name not in functions(ROOT / path)]
    assert not missing


def test_every_refusal_names_a_finding() -> None:
    cells = [cell for row in ROWS for cell in row if cell.startswith("refused")]
    codes = [match[1] if (match := re.match(r"refused: `([a-z0-9-]+)`", cell)) else "" for cell in cells]
    assert len(cells) >= 15
    assert all(codes), "a cell without the code of its finding"
    sources = "\n".join(p.read_text() for package in ("komodo", "activities") for p in (ROOT / package).rglob("*.py"))
    assert [code for code in codes if f'"{code}"' not in sources] == []


def test_every_supported_cell_names_a_test() -> None:
    """Versions apart, whose rows are about numbers."""
    matrix = PAGE.split("## Versions")[0] + PAGE.split("## Core\n")[1]
    cells = [c.strip() for line in matrix.splitlines() if line.startswith("| ") for c in line.strip("|").split("|")]
    assert [cell for cell in cells if cell.startswith("supported") and "::test_" not in cell] == []


def test_the_versions_are_those_that_the_program_knows() -> None:
    newest = ".".join(map(str, NEWEST_KNOWN))
    assert f"{newest} is the newest version known" in PAGE
