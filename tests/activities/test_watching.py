"""One check of the watch: the count of zombies, the whole check on the sandbox, and its section of the report."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from activities.fleet import monitor
from activities.fleet.monitor import Watching
from hosts.exec.script import Script, parse
from model.facts import Finding, Severity
from model.status import FleetResult, FleetState, SaveReport
from model.text.report import render_markdown
from model.text.watch import HEADING, lines, render_watch
from model.watch import SaveWatch, Seen, WatchReport, WatchState, WatchStep
from tests.activities.core_fleet import CHANGE, Bench, bench
from tests.activities.server_fleet import run
from tests.shells import words_of

SHELLS = [shell.split() for shell in ("dash", "busybox sh") if shutil.which(shell.split()[0])]
PARENT = """
import os, sys, time
for _ in range(3):
    if os.fork() == 0:
        os._exit(0)
if os.fork() == 0:
    for _ in range(2):
        if os.fork() == 0:
            os._exit(0)
    time.sleep(60)
print("ready", flush=True)
time.sleep(60)
"""


@pytest.fixture
def parent() -> Iterator[int]:
    """A process with three defunct children, and a child with two of its own."""
    process = subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, start_new_session=True)
    assert process.stdout
    assert process.stdout.readline() == b"ready\n"
    yield process.pid
    os.killpg(process.pid, 9)
    process.wait()
    process.stdout.close()


@pytest.mark.parametrize("shell", SHELLS, ids=lambda words: words[0])
def test_defunct_processes_are_counted_below_their_container(parent: int, shell: list[str]) -> None:
    script = Script.load("komodo.sh", "fleet/count_zombies.sh", str(parent), "999999999")
    counts = [""]
    for _ in range(100):
        done = subprocess.run([*shell, *words_of(script)], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        counts = parse(done.stdout)["zombies"]
        if counts[0] == f"{parent} 5":
            break
    assert counts == [f"{parent} 5", "999999999 0"]


def report(**changes: object) -> WatchReport:
    since = datetime(2026, 11, 23, 22, tzinfo=UTC)
    basis = WatchReport(
        fleet="prod", change=CHANGE, state=WatchState.WATCHING, since=since, until=since + timedelta(hours=26), at=since
    )
    return replace(basis, **changes)  # type: ignore[arg-type]


def test_the_text_of_status() -> None:
    now = report(checks=2, at=report().since + timedelta(hours=2), next_check=report().since + timedelta(hours=3))
    [line] = lines(now)
    assert line.startswith("watch over it: watching, 2 checks in 2 h")
    assert line.endswith("; nothing found")
    finding = Finding(code="zombies", severity=Severity.WARN, subject="core", text="37 defunct", hint="init: true")
    seen = Seen(finding=finding, first=now.at, last=now.at)
    reported = "\n".join(lines(replace(now, found=(seen, replace(seen, open=False)))))
    assert "! core: 37 defunct — init: true [zombies, 2026-11-24 00:00" in reported
    assert "(over) core: 37 defunct" in reported
    assert render_watch(now).startswith(f"{HEADING}\n")


async def test_a_check_of_an_upgraded_fleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with bench(tmp_path) as made:
        await made.upgraded()
        await _check_twice(made, monkeypatch)
        await _saves(made)
        await _after_a_rollback(made)


async def _check_twice(made: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    watch, fleet = Watching(made.hosts), made.fleet
    step = WatchStep(
        fleet=fleet,
        change=CHANGE,
        core=made.step.facts,
        servers=("Local",),
        since=datetime.now(UTC) - timedelta(hours=1),
    )
    deadline = datetime.now(UTC) + timedelta(seconds=20)
    while (first := await run(watch.watch_fleet, step)).findings or not first.stats:
        assert datetime.now(UTC) < deadline, first
        await asyncio.sleep(0.2)
    assert [s.server for s in first.stats] == ["Local"]
    assert not first.superseded

    made.sandbox.fault("stats-frozen", "core")
    frozen = await run(watch.watch_fleet, step)
    still = replace(step, before=frozen.stats, backup=True)
    found = {f.code: f for f in (await run(watch.watch_fleet, still)).findings}
    made.sandbox.heal()
    assert set(found) == {"stats-still", "backup-not-run"}
    assert found["stats-still"].subject == "Local"
    assert "`Backup Core Database` did not run since the upgrade; next: " in found["backup-not-run"].text

    not_done = await run(watch.watch_fleet, replace(step, servers=("Local", "web-1", "gone")))
    assert [(f.code, f.subject) for f in not_done.findings] == [("server-not-ok", "web-1")]

    made.sandbox.fault("agent-silent", "core")
    silent = (await run(watch.watch_fleet, step)).findings
    assert [(f.code, f.subject) for f in silent] == [("agent-silent", "Local")]
    made.sandbox.heal()

    monkeypatch.setattr(monitor, "MANY", 0)
    zombies = (await run(watch.watch_fleet, step)).findings
    assert {f.code for f in zombies} == {"zombies"}
    assert len(zombies) == 2, "Core and the agent in its project"

    rolled_back = replace(step, fleet=replace(fleet, target="2.3.3"))
    assert "Core is on 2.3.2 now" in (await run(watch.watch_fleet, rolled_back)).superseded
    lock = Path(fleet.core.host.state_dir) / "lock"
    shutil.move(lock, kept := lock.with_name("kept"))
    lock.mkdir()
    (lock / "owner").write_text("lab 20261124T080000Z\n2026-11-24T08:00:00Z\n")
    assert "the upgrade 20261124T080000Z of the fleet lab" in (await run(watch.watch_fleet, step)).superseded
    shutil.rmtree(lock)
    shutil.move(kept, lock)


def leftovers(folder: Path) -> list[Path]:
    return list(folder.glob(".watch*"))


async def _saves(made: Bench) -> None:
    folder = Path(made.step.op.folder(made.fleet.core.host.state_dir))
    result = FleetResult(
        fleet="f",
        target="2.3.2",
        change=CHANGE,
        state=FleetState.UPGRADED,
        started_at=datetime(2026, 11, 23, tzinfo=UTC),
        ended_at=datetime(2026, 11, 24, tzinfo=UTC),
    )
    save = SaveReport(op=made.step.op, core=made.fleet.core, page=result)
    await run(made.report.save_report, save)
    shutil.rmtree(Path(made.fleet.core.host.state_dir) / "lock")
    for checks in (1, 2):
        now = report(checks=checks)
        given = SaveWatch(fleet=made.fleet, report=now)
        done = await run(Watching(made.hosts).save_watch, given)
        assert done.facts == (f"{folder}/report.md", f"{folder}/watch.json")
    assert (folder / "report.md").read_text() == render_markdown(result) + render_watch(now)
    assert json.loads((folder / "watch.json").read_text())["watch"]["checks"] == 2
    assert not (Path(made.fleet.core.host.state_dir) / "lock").exists(), "the next upgrade's lock is left alone"
    assert not leftovers(folder)


async def _after_a_rollback(made: Bench) -> None:
    """Begun elsewhere, under this upgrade's own name: no lock, and no version of v2's, tells of it."""
    step = WatchStep(
        fleet=made.fleet,
        change=CHANGE,
        core=made.step.facts,
        servers=("Local", "web-1"),
        since=datetime.now(UTC) - timedelta(hours=1),
    )
    done = await made.manual_command(f"sudo sh {made.folder}/restore.sh")
    assert done.exit_status == 0, done.stderr
    assert "Core was rolled back at 2" in (await run(Watching(made.hosts).watch_fleet, step)).superseded
    (made.folder / "rolled-back-at").unlink()
    alone = await run(Watching(made.hosts).watch_fleet, step)
    reported = {f.code: f.text for f in alone.findings if f.code != "zombies"}
    assert reported == {"core-version": "Core answers as v1, not as 2.3.2"}
