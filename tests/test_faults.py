"""docs/faults.md lists exactly the sandbox's faults, and the tests that it names exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from sandbox.faults import KNOWN

ROOT = Path(__file__).parent.parent
TABLE = [
    [cell.strip() for cell in line.strip("|").split(" | ")]
    for line in (ROOT / "docs/faults.md").read_text().splitlines()
    if line.startswith("| `")
]


def test_the_table_lists_every_fault() -> None:
    named = [row[0].strip("` |") for row in TABLE]
    assert sorted(named) == sorted(KNOWN)
    assert all(len(row) == 3 and len(row[1]) > 10 for row in TABLE)


def test_named_tests_exist_and_use_the_fault() -> None:
    for row in TABLE:
        fault, proofs = row[0].strip("` |"), re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", row[2])
        assert proofs, f"no test for {fault}"
        spoken = ""
        for file, name in proofs:
            text = (ROOT / file).read_text()
            tests = [
                n.name for n in ast.walk(ast.parse(text)) if isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef))
            ]
            assert name in tests, f"{fault}: {file}::{name} does not exist"
            spoken += text
        assert f'"{fault}"' in spoken or fault == "disk-full", f"none of the tests uses {fault}"
