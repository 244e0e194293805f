"""docs/faults.md is held to the sandbox's faults and to the tests that it names, so that it cannot rot."""

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


def test_every_fault_has_its_line_and_every_line_its_fault() -> None:
    named = [row[0].strip("` |") for row in TABLE]
    assert sorted(named) == sorted(KNOWN)
    assert all(len(row) == 3 and len(row[1]) > 10 for row in TABLE)


def test_what_proves_a_line_is_there_and_speaks_of_it() -> None:
    for row in TABLE:
        fault, proofs = row[0].strip("` |"), re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", row[2])
        assert proofs, f"nothing proves {fault}"
        spoken = ""
        for file, name in proofs:
            text = (ROOT / file).read_text()
            tests = [
                n.name for n in ast.walk(ast.parse(text)) if isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef))
            ]
            assert name in tests, f"{fault}: there is no {file}::{name}"
            spoken += text
        assert f'"{fault}"' in spoken or fault == "disk-full", f"none of the tests switches {fault} on"
