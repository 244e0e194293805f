"""Running upgrades survive a new version: recorded histories are replayed, and their inputs compared."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.workflows import record_histories, replaying
from tests.workflows.driver import LocalServer
from worker import WORKFLOWS

HISTORIES = sorted(record_histories.FOLDER.glob("*.json"))


@pytest.mark.parametrize("seed", ["0", "4711"])
def test_every_recorded_history_replays_with_the_same_inputs(seed: str) -> None:
    """Two seeds: if a set decided the order, the inputs would differ between processes."""
    assert HISTORIES, "no history was recorded yet: python -m tests.workflows.record_histories"
    done = subprocess.run(
        [sys.executable, "-m", "tests.workflows.replaying", *map(str, HISTORIES)],
        env=os.environ | {"PYTHONHASHSEED": seed},
        cwd=Path(__file__).parent.parent.parent,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr[-4000:]


def test_every_workflow_has_a_recorded_history() -> None:
    started = [json.loads(path.read_text())["events"][0] for path in HISTORIES]
    recorded = {event["workflowExecutionStartedEventAttributes"]["workflowType"]["name"] for event in started}
    assert recorded == {kind.__name__ for kind in WORKFLOWS}


async def test_a_changed_input_is_found() -> None:
    [path] = [p for p in HISTORIES if ".upgrade.upgrade-prod.json" in p.name]
    text = path.read_text()
    assert await replaying.differences(text) == []
    history = json.loads(text)
    scheduled = [e for e in history["events"] if "activityTaskScheduledEventAttributes" in e]
    switched = [e["activityTaskScheduledEventAttributes"] for e in scheduled]
    inputs = [a["input"] for a in switched if a["activityType"]["name"] == "stage_server"]
    assert len(inputs) == 6
    inputs[0]["payloads"], inputs[1]["payloads"] = inputs[1]["payloads"], inputs[0]["payloads"]
    found = await replaying.differences(json.dumps(history))
    assert len(found) == 2, "two servers were exchanged, which Temporal's own replayer does not detect"
    assert "stage_server" in found[0]


async def test_a_history_is_never_recorded_again(local_server: LocalServer, tmp_path: Path) -> None:
    old = tmp_path / "0.1.0.check.check-prod.json"
    old.write_text("kept")
    with pytest.raises(FileExistsError):
        await record_histories.record(local_server, tmp_path, "0.1.0", "check")
    assert old.read_text() == "kept"
    [new] = await record_histories.record(local_server, tmp_path, "0.2.0", "check")
    assert await replaying.differences(new.read_text()) == []
