"""Options and fixtures that every test room shares."""

from __future__ import annotations

from pathlib import Path

import pytest

HERE = Path(__file__).parent


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--komodo-files",
        metavar="DIR",
        help="folder with Komodo's official files, one sub-folder a tag (v1.19.5/compose/…, v1.19.5/config/…)",
    )


@pytest.fixture(scope="session")
def captures() -> Path:
    """What real Komodo said, word for word."""
    return HERE / "captures"


def official_files(config: pytest.Config) -> list[Path]:
    """Every official file under --komodo-files; empty without the option."""
    folder = config.getoption("--komodo-files")
    if not folder:
        return []
    root = Path(folder).resolve()
    if not root.is_dir():
        raise pytest.UsageError(f"--komodo-files {folder}: no such folder")
    return sorted(p for p in root.rglob("*") if p.is_file())


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test that asks for `official_file` runs once for every official file (and not at all without the option)."""
    if "official_file" in metafunc.fixturenames:
        files = official_files(metafunc.config)
        metafunc.parametrize("official_file", files, ids=[str(Path(*p.parts[-3:])) for p in files])
