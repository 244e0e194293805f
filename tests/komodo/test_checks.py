"""The registry of checks: complete, documented, and what `check --explain` shows."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from cli.app import cli
from komodo.checks.all import CHECKS, GROUPS, find
from komodo.checks.registry import page

ROOT = Path(__file__).parent.parent.parent
MAKERS = {"refuse", "warn", "info", "_refuse", "_warn", "_info", "_finding", "with_finding", "_say", "_Refused"}
CODE = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")


def _sources() -> list[ast.Module]:
    """Where findings of `check` are made."""
    folders = ("komodo", "activities/core", "activities/server")
    files = [*(p for folder in folders for p in (ROOT / folder).rglob("*.py")), ROOT / "model" / "planning.py"]
    files += [
        ROOT / "model" / "facts.py",
        ROOT / "model" / "plan.py",
        ROOT / "workflows" / "phases" / "server_steps.py",
    ]
    return [ast.parse(path.read_text()) for path in files if "checks" not in path.relative_to(ROOT).parts]


def _constants(trees: list[ast.Module]) -> dict[str, str]:
    found = {}
    for node in (node for tree in trees for node in tree.body if isinstance(node, ast.Assign)):
        if isinstance(node.value, ast.Constant) and isinstance(node.targets[0], ast.Name):
            found[node.targets[0].id] = str(node.value.value)
    return found


def _codes(trees: list[ast.Module]) -> Iterator[str]:
    constants = _constants(trees)
    for call in (node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Call)):
        name = getattr(call.func, "id", getattr(call.func, "attr", ""))
        words = call.args[:2] if name in MAKERS else []
        words += [word.value for word in call.keywords if name == "Finding" and word.arg == "code"]
        for word in words:
            code = word.value if isinstance(word, ast.Constant) else constants.get(getattr(word, "id", ""), "")
            if isinstance(code, str) and CODE.fullmatch(code):
                yield code
                break


def test_the_registry_holds_every_code_and_no_other() -> None:
    assert {check.code for check in CHECKS} == set(_codes(_sources()))


def test_ids_and_codes_belong_to_one_check() -> None:
    assert len({check.id for check in CHECKS}) == len({check.code for check in CHECKS}) == len(CHECKS)


def test_the_page_is_what_the_registry_says() -> None:
    assert (ROOT / "docs" / "checks.md").read_text() == page(GROUPS), "python -m komodo.checks > docs/checks.md"


@pytest.mark.parametrize("name", ["KU025", "ku025", "alias-pair"])
def test_a_check_is_explained(name: str) -> None:
    shown = CliRunner().invoke(cli, ["check", "--explain", name])
    assert shown.exit_code == 0, shown.output
    assert shown.output.startswith("KU025 alias-pair: two spellings of one setting are both set")
    assert "entities/config/core.rs" in shown.output
    as_json = json.loads(CliRunner().invoke(cli, ["check", "--explain", name, "-o", "json"]).stdout)
    assert (as_json["id"], as_json["severity"]) == ("KU025", "refuse")
    assert find("KU999") is None
    assert CliRunner().invoke(cli, ["check", "--explain", "KU999"]).exit_code == 2
