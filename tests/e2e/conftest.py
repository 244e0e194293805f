"""The bed for the scenarios. Collected only when asked for (`make e2e`), so that `make test` needs no root."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.bed.bed import Bed
from tests.e2e.bed.settings import Missing
from tests.e2e.person import Person
from tests.e2e.probe import Probe

collect_ignore_glob = [] if os.environ.get("KUE_RUN") else ["test_*.py"]
TABLE: list[str] = []
"""What was proven and how long: printed at the end, written to $KUE_TABLE."""


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "e2e: on the bed of real machines, part of `make e2e`")
    config.addinivalue_line("markers", "e2e_all: on the bed of real machines, only in `make e2e-all`")


@pytest.fixture(scope="session")
def built() -> Iterator[Bed]:
    """Images and snapshot. What this machine lacks fails every scenario, with its name; nothing is skipped."""
    try:
        bed = Bed.build()
    except Missing as error:
        pytest.fail(f"the bed cannot be built here: {error}", pytrace=False)
    try:
        yield bed
    finally:
        if not os.environ.get("KUE_KEEP"):
            bed.down()


@pytest.fixture(scope="module")
def bed(built: Bed) -> Bed:
    """Six servers and Core, fresh, for the scenarios of one module, which follow on one another."""
    built.up()
    return built


@pytest.fixture
def fresh(built: Bed) -> Bed:
    """The same for one scenario."""
    built.up()
    return built


@pytest.fixture(scope="module")
def ann(bed: Bed, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Person]:
    """Who upgrades the module's fleet."""
    yield from _person(bed, tmp_path_factory.mktemp("ann"))


@pytest.fixture
def bob(fresh: Bed, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Person]:
    """Who upgrades the scenario's fleet; a parameter is the fleet file's `rollout` and `timing`."""
    yield from _person(fresh, tmp_path, **getattr(request, "param", {}))


def _person(bed: Bed, folder: Path, **fleet: str) -> Iterator[Person]:
    person = Person.of(bed, folder, **fleet)
    try:
        yield person
    finally:
        person.leave()
        (folder / "said.log").write_text("\n\n".join(person.said))


@pytest.fixture
def probe(fresh: Bed) -> Iterator[Probe]:
    """Watches every agent's port and Core's word for it."""
    with Probe(fresh) as one:
        yield one


@pytest.fixture
def note(request: pytest.FixtureRequest) -> Iterator[list[str]]:
    """What a scenario has proven, for the table."""
    began, proven = time.monotonic(), list[str]()
    yield proven
    seconds = time.monotonic() - began
    TABLE.append(f"| {request.node.name} | {seconds:.0f} s | {'; '.join(proven)} |")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if not TABLE:
        return
    lines = ["| scenario | time | proven |", "|---|---|---|", *TABLE]
    terminalreporter.section("end to end")
    for line in lines:
        terminalreporter.write_line(line)
    if file := os.environ.get("KUE_TABLE"):
        Path(file).write_text("\n".join(lines) + "\n")
