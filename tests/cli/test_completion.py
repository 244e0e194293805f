"""What a shell offers after Tab."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from click.shell_completion import ShellComplete

from cli import completion
from cli.app import cli
from service.embedded.state import StateDir
from tests.model.broken_fleet_files import GOOD, SERVER


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KOMODO_UPGRADE_STATE", str(tmp_path / "state"))
    for name in ("TEMPORAL_ADDRESS", "TEMPORAL_PROFILE", "KOMODO_UPGRADE_FLEET"):
        monkeypatch.delenv(name, raising=False)
    Path("fleet.toml").write_text(GOOD + SERVER.replace("web-1", "db-1").replace("10.0.0.11", "10.0.0.12"))
    Path("other.toml").write_text("[tool]\n")
    Path("broken.toml").write_text("[fleet\n")


def offered(*words: str) -> list[str]:
    *before, last = words
    return [item.value for item in ShellComplete(cli, {}, "komodo-upgrade", "_X").get_completions(before, last)]


def test_fleet_files_are_offered_and_other_files_are_not() -> None:
    assert offered("check", "") == ["fleet.toml"]
    assert offered("start", "fl") == ["fleet.toml"]
    assert offered("status", "") == ["fleet.toml"]
    assert offered("check", "nothing") == ["nothing"], "the shell goes on with its own files"


def test_servers_of_the_fleet_are_offered() -> None:
    assert offered("retry", "w") == ["web-1"]
    assert offered("skip", "fleet.toml", "") == ["web-1", "db-1"]
    assert offered("rollback", "fleet.toml", "--server", "d") == ["db-1"]
    assert offered("start", "--limit", "") == ["web-1", "db-1"]
    assert "web-1" not in offered("retry", "web-1", "")


def test_without_a_running_service_nothing_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    assert offered("approve", "--gate", "") == []
    assert not StateDir().root.exists()
    Path("fleet.toml").write_text("server = 3\n[fleet]\nname = 7\n")
    assert offered("retry", "") == ["fleet.toml"]


def test_the_open_gate_and_known_fleets_are_offered(monkeypatch: pytest.MonkeyPatch) -> None:
    async def client() -> object:
        return object()

    async def gate(_: Any, fleet: str) -> tuple[str, str]:
        return ("wave/2", "Upgrade wave 2: db-1?") if fleet == "prod" else ("", "")

    async def known(_: Any) -> list[tuple[str, str]]:
        return [("prod", "running"), ("lab", "completed")]

    for name, stand_in in {"_client": client, "_gate": gate, "_fleets": known}.items():
        monkeypatch.setattr(completion, name, stand_in)
    assert offered("approve", "--gate", "") == ["wave/2"]
    assert offered("approve", "lab", "--gate", "") == []
    assert offered("status", "la") == ["lab", "la"]
    assert offered("status", "") == ["prod", "lab", "fleet.toml"]
