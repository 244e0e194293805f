"""Fixtures of the end-to-end scenarios, which only `make e2e` collects, so that `make test` needs no root."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.bed import turns
from tests.e2e.bed.bed import Bed
from tests.e2e.bed.settings import Missing
from tests.e2e.operator import Operator
from tests.e2e.probe import Probe

collect_ignore_glob = [] if os.environ.get("KUE_RUN") else ["test_*.py"]
TABLE: list[str] = []
"""What was proven and how long it took; printed at the end and written to $KUE_TABLE."""
ORDER = ("test_upgrade", "test_failure", "test_crash", "test_by_hand")
"""The most important scenarios run first, because time may run out."""
LONGEST = 200.0
"""Seconds that a default scenario may take on a loaded machine, including a fresh test bed."""
NOT_RUN: list[str] = []


def _ended(_number: int, _frame: object) -> None:
    raise KeyboardInterrupt


def pytest_configure(config: pytest.Config) -> None:
    if os.environ.get("KUE_RUN"):
        signal.signal(signal.SIGTERM, _ended)  # like Ctrl-C: machines, workers and Temporal servers are removed
    config.addinivalue_line("markers", "e2e: on the bed of real machines, part of `make e2e`")
    config.addinivalue_line("markers", "e2e_all: on the bed of real machines, only in `make e2e-all`")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if not os.environ.get("KUE_RUN"):
        return
    names = [item.path.stem for item in items]
    place = {name: ORDER.index(name) if name in ORDER else len(ORDER) + n for n, name in enumerate(names)}
    items.sort(key=lambda item: place[item.path.stem])


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Leave a scenario out if it might not end before $KUE_UNTIL (seconds since 1970), and report that."""
    until = float(os.environ.get("KUE_UNTIL") or "inf")
    if time.time() + LONGEST > until:
        NOT_RUN.append(item.name)
        pytest.skip(f"no time left for it before {time.strftime('%H:%M:%S', time.localtime(until))}")


@pytest.fixture(scope="session")
def built() -> Iterator[Bed]:
    """Images and snapshot. If the machine lacks something, every scenario fails and names it."""
    try:
        turn = turns.take(lambda text: print(text, file=sys.stderr, flush=True))
        bed = Bed.build()
    except Missing as error:
        pytest.fail(f"the bed cannot be built here: {error}", pytrace=False)
    try:
        yield bed
    finally:
        if not os.environ.get("KUE_KEEP"):
            bed.down()
        for file in turn:
            file.close()


@pytest.fixture(scope="module")
def bed(built: Bed) -> Bed:
    """A fresh test bed for a module whose scenarios build on each other."""
    built.up()
    return built


@pytest.fixture
def fresh(built: Bed) -> Bed:
    """A fresh test bed for one scenario."""
    built.up()
    return built


@pytest.fixture(scope="module")
def ann(bed: Bed, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operator]:
    """The operator of the module's fleet."""
    yield from _operator(bed, tmp_path_factory.mktemp("ann"))


@pytest.fixture
def bob(fresh: Bed, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Operator]:
    """The operator of the scenario's fleet; parameters are tables of the fleet file."""
    yield from _operator(fresh, tmp_path, **getattr(request, "param", {}))


def _operator(bed: Bed, folder: Path, **fleet: str) -> Iterator[Operator]:
    operator = Operator.of(bed, folder, **fleet)
    try:
        yield operator
    finally:
        operator.leave()
        (folder / "transcript.log").write_text("\n\n".join(operator.transcript))


@pytest.fixture
def probe(fresh: Bed) -> Iterator[Probe]:
    """Measures every agent's port and status while the scenario runs."""
    with Probe(fresh) as one:
        yield one


@pytest.fixture
def note(request: pytest.FixtureRequest) -> Iterator[list[str]]:
    """Lines about what a scenario has proven, for the table."""
    began, proven = time.monotonic(), list[str]()
    yield proven
    seconds = time.monotonic() - began
    TABLE.append(f"| {request.node.name} | {seconds:.0f} s | {'; '.join(proven)} |")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if not os.environ.get("KUE_RUN"):
        return
    count = {word: len(terminalreporter.getreports(word)) for word in ("passed", "failed", "error")}
    left_out = f"; NOT RUN, no time left: {', '.join(NOT_RUN)}" if NOT_RUN else ""
    terminalreporter.ensure_newline()
    reported = ", ".join(f"{n} {word}" for word, n in count.items() if n or word == "passed")
    terminalreporter.write_line(f"e2e: {reported}{left_out}")
    lines = ["| scenario | time | proven |", "|---|---|---|", *TABLE]
    terminalreporter.section("end to end")
    for line in lines:
        terminalreporter.write_line(line)
    if file := os.environ.get("KUE_TABLE"):
        Path(file).write_text("\n".join(lines) + "\n")
