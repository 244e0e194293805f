"""Packages depend only on lower layers, hold no import cycles and stay small; workflow code imports almost nothing."""

from __future__ import annotations

import ast
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("model", "hosts", "komodo", "activities", "workflows", "sandbox", "service", "web", "cli", "bench")
OURS = {*PACKAGES, "starter", "worker", "tests"}

MAY_IMPORT = {
    "model": {"model"},
    "hosts": {"hosts", "model"},
    "komodo": {"komodo", "model"},
    "activities": {"activities", "komodo", "hosts", "model"},
    "workflows": {"workflows", "model", "activities.contracts"},
    "sandbox": {"sandbox", "komodo", "model"},
    "web": {"web", "service", "model", "hosts.private_file"},
}
"""What each layer may import of this project. Packages that connect layers (service, cli, bench) may import all."""

MUST_NOT_IMPORT = {
    "model": {"temporalio", "asyncssh", "httpx2", "motor", "click", "rich", "jinja2", "starlette", "uvicorn"},
    "hosts": {"temporalio", "httpx2", "motor", "click", "rich"},
    "komodo": {"temporalio", "asyncssh", "click", "rich"},
    "activities": {"asyncssh", "motor", "click", "rich"},
    "sandbox": {"temporalio", "motor", "click"},
    "web": {"asyncssh", "motor", "click", "rich"},
}
"""Libraries that belong to another layer."""

MODULES_PER_FOLDER = 13
LINES_PER_FILE = 420
DOCSTRING = 20
"""The least length of a package's docstring: a placeholder is shorter."""


@dataclass(frozen=True)
class Import:
    """One import statement's target, resolved to a module of this project where it is one."""

    path: Path
    line: int
    module: str

    def __str__(self) -> str:
        return f"{self.path.relative_to(ROOT)}:{self.line} imports {self.module}"


def sources(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


@cache
def imports(path: Path) -> tuple[Import, ...]:
    """Every import in a file, also those inside functions and under TYPE_CHECKING."""
    found = []
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            found += [Import(path, node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            found += [Import(path, node.lineno, resolve(node.module or "", alias.name)) for alias in node.names]
    return tuple(found)


def resolve(module: str, name: str) -> str:
    """`from package import name` imports the module package.name if there is one, else the package itself."""
    target = ROOT.joinpath(*module.split("."), name)
    return f"{module}.{name}" if target.with_suffix(".py").exists() or (target / "__init__.py").exists() else module


def within(module: str, allowed: Iterable[str]) -> bool:
    return any(module == name or module.startswith(f"{name}.") for name in allowed)


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_packages_depend_only_on_lower_layers(package: str) -> None:
    wrong = [
        str(found)
        for path in sources(package)
        for found in imports(path)
        if (top := found.module.split(".")[0]) in MUST_NOT_IMPORT.get(package, ())
        or (top in OURS and not within(found.module, MAY_IMPORT[package]))
    ]
    assert not wrong, "\n".join(wrong)


def test_packages_import_no_tests() -> None:
    wrong = [
        str(found)
        for p in PACKAGES
        for path in sources(p)
        for found in imports(path)
        if within(found.module, ["tests"])
    ]
    assert not wrong, "\n".join(wrong)


def test_workflows_import_only_the_standard_library_temporal_models_and_contracts() -> None:
    allowed = {*sys.stdlib_module_names, "temporalio", *MAY_IMPORT["workflows"]}
    wrong = [
        str(found) for path in sources("workflows") for found in imports(path) if not within(found.module, allowed)
    ]
    assert not wrong, "\n".join(wrong)


def test_workflows_hold_no_sets() -> None:
    """String hashes differ per process: code that iterates a set takes another order when the history is replayed."""
    wrong = [
        f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 0)}"
        for path in sources("workflows")
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Set | ast.SetComp) or (isinstance(node, ast.Name) and node.id in {"set", "frozenset"})
    ]
    assert not wrong, f"sets in workflow code: {wrong}"


@pytest.mark.parametrize("package", PACKAGES)
def test_packages_have_no_import_cycle(package: str) -> None:
    graph = {module_name(path): {found.module for found in imports(path)} for path in sources(package)}
    graph = {module: {t for t in targets if t in graph and t != module} for module, targets in graph.items()}
    cycles = list(cyclic_groups(graph))
    assert not cycles, "\n".join(" <-> ".join(sorted(group)) for group in cycles)


def cyclic_groups(graph: dict[str, set[str]]) -> Iterator[set[str]]:
    """The groups of modules that reach each other."""
    reach = {module: reachable(graph, module) for module in graph}
    seen: set[str] = set()
    for module in sorted(graph):
        if module in reach[module] and module not in seen:
            group = {other for other in reach[module] if module in reach[other]}
            seen |= group
            yield group


def reachable(graph: dict[str, set[str]], start: str) -> set[str]:
    found: set[str] = set()
    pending = [start]
    while pending:
        for target in graph[pending.pop()] - found:
            found.add(target)
            pending.append(target)
    return found


def test_a_cycle_is_found() -> None:
    graph = {"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": {"a"}}
    assert list(cyclic_groups(graph)) == [{"b", "c"}]


@pytest.mark.parametrize("package", PACKAGES)
def test_folders_hold_about_a_dozen_modules(package: str) -> None:
    modules = Counter(path.parent for path in sources(package) if path.name != "__init__.py")
    full = {str(folder.relative_to(ROOT)): n for folder, n in modules.items() if n > MODULES_PER_FOLDER}
    assert not full, f"more than {MODULES_PER_FOLDER} modules: {full}"


@pytest.mark.parametrize("package", [*PACKAGES, "tests"])
def test_files_stay_readable(package: str) -> None:
    long = {
        str(path.relative_to(ROOT)): lines
        for path in sources(package)
        if (lines := len(path.read_text().splitlines())) > LINES_PER_FILE
    }
    assert not long, f"over {LINES_PER_FILE} lines: {long}"


@pytest.mark.parametrize("package", PACKAGES)
def test_packages_have_a_docstring(package: str) -> None:
    undocumented = [
        str(path.relative_to(ROOT))
        for path in sources(package)
        if path.name == "__init__.py" and len(ast.get_docstring(tree(path)) or "") < DOCSTRING
    ]
    assert not undocumented, "\n".join(undocumented)
