"""Options and fixtures that all tests share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

HERE = Path(__file__).parent


def _compose(path: Path) -> bool:
    return path.parent.name == "compose" and path.suffix == ".yaml"


OFFICIAL: dict[str, Callable[[Path], bool]] = {
    "any": lambda path: True,
    "compose": _compose,
    "services": lambda path: _compose(path) and not path.name.startswith("caddy"),
    "v1-core": lambda path: (
        _compose(path) and not path.name.startswith(("caddy", "periphery")) and path.parts[-3].startswith("v1")
    ),
    "env": lambda path: path.suffix == ".env",
    "agent-config": lambda path: path.name == "periphery.config.toml",
}
"""Kinds of official files that `@pytest.mark.official(KIND)` selects. "services": Komodo's own services."""


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "official(kind): the kind of official files that `official_file` iterates over")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--komodo-files",
        metavar="DIR",
        help="folder with Komodo's official files, one sub-folder per tag (v1.19.5/compose/…, v1.19.5/config/…)",
    )


@pytest.fixture(scope="session")
def captures() -> Path:
    """The recorded output of real Komodo programs."""
    return HERE / "captures"


def official_files(config: pytest.Config) -> list[Path]:
    """Every official file below --komodo-files; none without the option."""
    folder = config.getoption("--komodo-files")
    if not folder:
        return []
    root = Path(folder).resolve()
    if not root.is_dir():
        raise pytest.UsageError(f"--komodo-files {folder}: no such folder")
    return sorted(p for p in root.rglob("*") if p.is_file())


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test with `official_file` once for every official file of its kind; without the option, not at all."""
    if "official_file" in metafunc.fixturenames:
        mark = metafunc.definition.get_closest_marker("official")
        wanted = OFFICIAL[mark.args[0] if mark else "any"]
        files = [path for path in official_files(metafunc.config) if wanted(path)]
        metafunc.parametrize("official_file", files, ids=[str(Path(*p.parts[-3:])) for p in files])
