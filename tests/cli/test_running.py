"""Commands on running and closed upgrades, against a real Temporal server with doubles of the workflows behind it."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cli import gates, output
from model.fleet.file import load
from model.fleet.spec import workflow_id
from model.status import UpgradeRequest
from service.connection import actor, connect
from service.embedded.state import Running
from service.requests import new_change
from tests.cli.conftest import Call

Fleet = Callable[..., Path]


def as_json(komodo_upgrade: Call, *arguments: str, code: int = 0) -> Any:
    return json.loads(komodo_upgrade(*arguments, "-o", "json", code=code).stdout)


def wait_for_gate(komodo_upgrade: Call, gate: str) -> Any:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        progress = json.loads(komodo_upgrade("status", "--wait", "--timeout", "20s", "-o", "json", code=6).stdout)
        if progress["gate"]["id"] == gate:
            return progress
    raise AssertionError(f"gate {gate} never opened")


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Simulate a terminal; the runner's input is what is typed."""
    # A module that is imported while `output` is patched would keep the patched function.
    monkeypatch.setattr("cli.commands.start.on_terminal", lambda: True)
    for module in (output, gates):
        monkeypatch.setattr(module, "on_terminal", lambda: True)


# --- before -----------------------------------------------------------------------------------------------------------


def test_check_groups_findings_by_host_and_refuses_with_4(komodo_upgrade: Call, fleet: Fleet) -> None:
    fleet("web-1", "bad-1")
    shown = komodo_upgrade("check", code=4)
    lines = [line.strip() for line in shown.stdout.splitlines()]
    at = lines.index("bad-1  agent 1.19.5")
    assert lines[at + 1] == "✗ a finding of the check [x]"
    assert lines[at + 2] == "→ correct it"
    assert "binary /usr/local/bin/periphery, from ExecStart of periphery.service" in lines
    assert "Settings → Profile → API Keys" in shown.stdout
    assert "refused: 1 problem to solve first" in shown.stdout
    assert "surveying 3 hosts" in shown.stderr


def test_check_is_0_when_ready(komodo_upgrade: Call, fleet: Fleet) -> None:
    fleet("web-1")
    assert "ready: Core and 1 server, 1 warning to read" in komodo_upgrade("check").stdout


@pytest.mark.parametrize(("server", "code"), [("web-1", 5), ("bad-1", 4), ("current-1", 0)])
def test_plan_has_an_exit_code_for_each_case(server: str, code: int, komodo_upgrade: Call, fleet: Fleet) -> None:
    fleet(server)
    found = as_json(komodo_upgrade, "plan", code=code)
    assert found["plan"]["servers"][0]["name"] == server


def test_plan_shows_diffs_commands_rollback_and_digest(komodo_upgrade: Call, fleet: Fleet) -> None:
    fleet("web-1")
    text = komodo_upgrade("plan", code=5).stdout
    digest = as_json(komodo_upgrade, "plan", code=5)["plan"]["digest"]
    for part in ("web-1: /etc/komodo/periphery.config.toml", "+new", "-old", "docker compose up -d core", "restore.sh"):
        assert part in text
    assert f"plan digest: {digest}" in text
    assert "canary: web-1" in text


# --- start, gates, end ------------------------------------------------------------------------------------------------


def test_a_whole_upgrade_without_a_terminal(
    komodo_upgrade: Call, fleet: Fleet, fleet_name: str, tmp_path: Path
) -> None:
    fleet("web-1", "web-2")
    started = komodo_upgrade("start", code=6)
    assert f"komodo-upgrade approve --gate core --confirm {fleet_name}" in started.stderr
    assert "2 servers are unmanaged until upgraded" in started.stderr

    second = komodo_upgrade("start", code=11)
    assert f"{fleet_name} is being upgraded: begun by {actor()}" in second.stderr
    assert f"komodo-upgrade watch {fleet_name}" in second.stderr

    status = komodo_upgrade("status", code=6)
    assert "waiting at gate core" in status.stdout
    assert as_json(komodo_upgrade, "status", fleet_name, code=6)["gate"]["confirm"] == fleet_name

    assert f"--confirm {fleet_name}" in komodo_upgrade("approve", code=2).stderr
    assert f"--confirm {fleet_name}" in komodo_upgrade("approve", "--yes", "--gate", "core", code=2).stderr
    assert "is not the name of this fleet" in komodo_upgrade("approve", "--confirm", "prod", code=1).stderr
    assert "gate wave/2 is not open" in komodo_upgrade("approve", "--gate", "wave/2", "--yes", code=1).stderr
    assert (
        "the plan has changed" in komodo_upgrade("approve", "--plan", "0" * 16, "--confirm", fleet_name, code=1).stderr
    )
    assert "does not take retry; it takes approve, reject" in komodo_upgrade("retry", "--yes", code=1).stderr

    accepted = as_json(komodo_upgrade, "approve", "--confirm", fleet_name)
    assert accepted == {"gate": "core", "verdict": "approve", "stored_only": False}

    followed = komodo_upgrade("watch")
    assert "web-1: upgrading, switching the agent" in followed.stderr  # asked of the child
    assert f"{fleet_name} → 2.3.2: upgraded after" in followed.stdout

    late = komodo_upgrade("approve", "--gate", "core", "--confirm", fleet_name, code=1)
    assert "no gate is open" in late.stderr
    assert as_json(komodo_upgrade, "status")["state"] == "upgraded"
    assert f"# Komodo {fleet_name}: upgraded" in komodo_upgrade("report").stdout
    assert as_json(komodo_upgrade, "report")["result"]["servers"][0]["name"] == "web-1"
    komodo_upgrade("report", "--write", "records")
    assert json.loads((tmp_path / "records" / "report.json").read_text())["result"]["state"] == "upgraded"
    assert "gate core: approve by" in (tmp_path / "records" / "report.md").read_text()
    komodo_upgrade("report", "--html", "records/report.html")
    assert f"<h1>Komodo {fleet_name}: upgraded</h1>" in (tmp_path / "records" / "report.html").read_text()
    rows = [row for row in as_json(komodo_upgrade, "list") if row["fleet"] == fleet_name]
    assert [(row["state"], row["requested_by"], row["kind"]) for row in rows] == [("upgraded", actor(), "upgrade")]


def test_start_on_a_terminal_asks_and_wants_the_name(
    komodo_upgrade: Call, fleet: Fleet, fleet_name: str, terminal: None
) -> None:
    fleet("web-1")
    done = komodo_upgrade("start", text=f"perhaps\napprove\nwrong\napprove\n{fleet_name}\n")
    assert "one of: approve, reject, later" in done.stderr
    assert "the name does not match: nothing was sent" in done.stderr
    assert "upgraded after" in done.stdout


def test_a_name_given_in_advance_approves_gate_core_alone(komodo_upgrade: Call, fleet: Fleet, fleet_name: str) -> None:
    fleet("broken-1")
    assert "nothing was started" in komodo_upgrade("start", "--confirm", "prod", code=1).stderr
    assert "no upgrade" in komodo_upgrade("status", code=2).stderr
    stopped = komodo_upgrade("start", "--confirm", fleet_name, code=6)
    assert "2 servers are unmanaged until upgraded" in stopped.stderr
    assert "accepted: gate core: approve" in stopped.stderr
    assert "waiting at gate failure/broken-1/1" in stopped.stderr
    komodo_upgrade("skip", "broken-1", "--yes")


def test_status_tells_work_from_waiting(komodo_upgrade: Call, fleet: Fleet, fleet_name: str) -> None:
    fleet(*(f"web-{n}" for n in range(30)))
    komodo_upgrade("start", "--detach", code=6)
    komodo_upgrade("approve", "--confirm", fleet_name)
    assert "rolling out" in komodo_upgrade("status", code=9).stdout
    komodo_upgrade("pause")
    assert "paused" in komodo_upgrade("status", code=6).stdout


def test_later_leaves_the_gate_open(komodo_upgrade: Call, fleet: Fleet, fleet_name: str, terminal: None) -> None:
    fleet("web-1")
    left = komodo_upgrade("start", text="\n", code=6)
    assert "the gate stays open" in left.stderr
    komodo_upgrade("reject", "--gate", "core", "--reason", "postponed")
    assert as_json(komodo_upgrade, "status", code=3)["state"] == "stopped"
    decisions = as_json(komodo_upgrade, "report")["result"]["decisions"]
    assert [d["decision"]["reason"] for d in decisions] == ["postponed"]


def test_approve_on_a_terminal_shows_the_facts_first(
    komodo_upgrade: Call, fleet: Fleet, fleet_name: str, terminal: None
) -> None:
    fleet("web-1")
    komodo_upgrade("start", "--detach", code=6)
    changed_mind = komodo_upgrade("approve", text="other\n", code=1)
    assert "2 servers are unmanaged until upgraded" in changed_mind.stderr
    assert "nothing was sent" in changed_mind.stderr
    komodo_upgrade("approve", text=f"{fleet_name}\n")
    komodo_upgrade("status", "--wait", "--timeout", "20s")


def test_an_upgrade_outlives_the_terminal(komodo_upgrade: Call, fleet: Fleet, terminal: None) -> None:
    fleet("web-1")
    left = komodo_upgrade("start", text="", code=130)
    assert "a running upgrade continues" in left.stderr
    komodo_upgrade("status", code=6)


def test_a_failed_server_is_retried_skipped_or_rolled_back_by_name(
    komodo_upgrade: Call, fleet: Fleet, fleet_name: str
) -> None:
    fleet("broken-1", "broken-2", "broken-3")
    komodo_upgrade("start", code=6)
    komodo_upgrade("approve", "--confirm", fleet_name)
    wait_for_gate(komodo_upgrade, "failure/broken-1/1")
    assert "is about broken-1, not about broken-2" in komodo_upgrade("retry", "broken-2", "--yes", code=1).stderr
    assert "add --gate failure/broken-1/1" in komodo_upgrade("retry", "broken-1", code=2).stderr
    komodo_upgrade("retry", "broken-1", "--yes")
    wait_for_gate(komodo_upgrade, "failure/broken-2/1")
    komodo_upgrade("skip", fleet_name, "broken-2", "--yes", "--reason", "Friday")
    wait_for_gate(komodo_upgrade, "failure/broken-3/1")
    assert "is not waiting for a decision about broken-1" in komodo_upgrade("rollback", "broken-1", code=1).stderr
    komodo_upgrade("rollback", "broken-3")
    komodo_upgrade("status", "--wait", "--timeout", "20s")
    taken = [d["decision"]["verdict"] for d in as_json(komodo_upgrade, "report")["result"]["decisions"]]
    assert taken == ["approve", "retry", "skip", "rollback"]


def test_a_refused_preflight_ends_with_4(komodo_upgrade: Call, fleet: Fleet) -> None:
    fleet("bad-1")
    done = komodo_upgrade("start", code=4)
    assert "refused: bad-1: a finding of the check → correct it" in done.stdout


def test_pause_resume_stop_are_recorded(komodo_upgrade: Call, fleet: Fleet) -> None:
    fleet("web-1")
    komodo_upgrade("start", code=6)
    komodo_upgrade("pause", "--reason", "switch maintenance")
    assert "paused" in komodo_upgrade("status", code=6).stdout
    komodo_upgrade("resume")
    assert as_json(komodo_upgrade, "stop") == {"verb": "stop", "stored_only": False}
    komodo_upgrade("status", "--wait", "--timeout", "20s", code=3)
    verbs = [(c["verb"], c["reason"], c["actor"]) for c in as_json(komodo_upgrade, "report")["result"]["controls"]]
    assert verbs == [("pause", "switch maintenance", actor()), ("resume", "", actor()), ("stop", "", actor())]
    ended = komodo_upgrade("pause", code=2).stderr
    assert "has ended already" in ended


def test_a_timeout_leaves_with_124(komodo_upgrade: Call, fleet: Fleet) -> None:
    fleet("web-1")
    komodo_upgrade("start", code=6)
    assert "the upgrade continues" in komodo_upgrade("watch", "--timeout", "500ms", code=124).stderr


def test_an_unknown_fleet_is_named(komodo_upgrade: Call) -> None:
    assert "there is no upgrade of a fleet named nobody" in komodo_upgrade("status", "nobody", code=2).stderr
    komodo_upgrade("approve", "nobody", code=2)
    komodo_upgrade("report", "nobody", code=2)
    komodo_upgrade("rollback", "nobody", code=2)


def test_a_report_of_a_running_upgrade_is_refused(komodo_upgrade: Call, fleet: Fleet) -> None:
    fleet("web-1")
    komodo_upgrade("start", code=6)
    assert "still running" in komodo_upgrade("report", code=2).stderr


# --- decisions that cross each other, and workers that are not there --------------------------------------------------


def test_a_second_answer_to_the_same_gate_learns_of_the_first(
    komodo_upgrade: Call, fleet: Fleet, fleet_name: str, service: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The update's id is the gate's, so the second answer returns the record of the first."""
    from model.errors import NotAccepted
    from model.gates import Decision, Verdict
    from service.client import Upgrade

    fleet("web-1")
    komodo_upgrade("start", code=6)
    digest = as_json(komodo_upgrade, "status", code=6)["plan_digest"]

    async def both() -> None:
        upgrade = Upgrade(await connect({"target_host": service.address}), fleet_name)
        first = Decision(gate="core", verdict=Verdict.REJECT, actor="alice", plan_digest=digest)
        await upgrade.decide(first)
        with pytest.raises(NotAccepted, match="already answered: reject by alice"):
            await upgrade.decide(Decision(gate="core", verdict=Verdict.APPROVE, actor="bob", plan_digest=digest))

    asyncio.run(both())


def test_a_stale_plan_is_refused_by_the_upgrade_itself(
    komodo_upgrade: Call, fleet: Fleet, fleet_name: str, service: Running
) -> None:
    from model.errors import NotAccepted
    from model.gates import Decision, Verdict
    from service.client import Upgrade

    fleet("web-1")
    komodo_upgrade("start", code=6)

    async def stale() -> None:
        upgrade = Upgrade(await connect({"target_host": service.address}), fleet_name)
        with pytest.raises(NotAccepted, match="is about another"):
            await upgrade.decide(Decision(gate="core", verdict=Verdict.APPROVE, actor="bob", plan_digest="old"))

    asyncio.run(stale())
    komodo_upgrade("status", code=6)


@pytest.fixture
def without_worker(fleet: Fleet, fleet_name: str, service: Running, komodo_upgrade: Call) -> str:
    """An upgrade without a worker."""
    spec = load(fleet("web-1"))

    async def start() -> None:
        client = await connect({"target_host": service.address})
        request = UpgradeRequest(fleet=spec, change=new_change())
        await client.start_workflow("UpgradeFleet", request, id=workflow_id(fleet_name), task_queue="nobody-polls-this")

    asyncio.run(start())
    return fleet_name


@pytest.mark.usefixtures("without_worker")
def test_without_a_worker_a_decision_is_stored_and_reported_so(
    komodo_upgrade: Call, fleet_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from datetime import timedelta

    monkeypatch.setattr("service.client.ANSWER", timedelta(seconds=1))
    unanswered = komodo_upgrade("status", code=10).stderr
    assert "no worker answered" in unanswered
    assert "the upgrade itself is safe in Temporal" in unanswered
    assert "the open gate cannot be shown" in komodo_upgrade("approve", "--yes", code=10).stderr
    assert "needs --plan DIGEST" in komodo_upgrade("approve", "--gate", "core", code=2).stderr
    stored = komodo_upgrade("approve", "--gate", "core", "--plan", "abc", "--confirm", fleet_name)
    assert "stored gate core: approve; no worker answered" in stored.stderr
    assert as_json(komodo_upgrade, "pause") == {"verb": "pause", "stored_only": True}


def test_without_temporal_the_exit_code_is_10(
    komodo_upgrade: Call, fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet("web-1")
    monkeypatch.setenv("TEMPORAL_ADDRESS", "127.0.0.1:1")
    shown = komodo_upgrade("start", code=10).stderr
    assert "no Temporal server answers at 127.0.0.1:1" in shown
    assert "TEMPORAL_ADDRESS" in shown


def test_broken_settings_of_temporal_are_named(komodo_upgrade: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEMPORAL_PROFILE", "nope")
    assert "nope" in komodo_upgrade("list", code=10).stderr


def test_start_without_a_worker_starts_nothing(
    komodo_upgrade: Call, fleet: Fleet, fleet_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet("web-1")
    monkeypatch.setattr("cli.session.TASK_QUEUE", "another-queue")
    assert "komodo-upgrade-worker" in komodo_upgrade("start", code=10).stderr
    komodo_upgrade("status", code=2)


def test_a_terminated_upgrade_is_reported_as_such(
    komodo_upgrade: Call, fleet: Fleet, fleet_name: str, service: Running
) -> None:
    fleet("web-1")
    komodo_upgrade("start", code=6)

    async def end() -> None:
        client = await connect({"target_host": service.address})
        await client.get_workflow_handle(workflow_id(fleet_name)).terminate()

    later = threading.Timer(1, lambda: asyncio.run(end()))
    later.start()
    watched = komodo_upgrade("watch", code=3).stdout
    later.join()
    status = komodo_upgrade("status", code=3).stdout
    assert watched.endswith(status), "`watch` shows the same"
    assert "was terminated through Temporal" in status
    assert "komodo-upgrade rollback" in status
    assert "komodo-upgrade start" in status
    assert as_json(komodo_upgrade, "status", code=3)["status"] == "terminated"
    rows = [row for row in as_json(komodo_upgrade, "list") if row["fleet"] == fleet_name]
    assert [row["state"] for row in rows] == ["terminated"]


# --- later ------------------------------------------------------------------------------------------------------------


def test_a_start_can_be_scheduled(komodo_upgrade: Call, fleet: Fleet) -> None:
    fleet("web-1")
    refused = komodo_upgrade("start", "--at", "soon", code=2).stderr
    assert "it is no time; write 22:30" in " ".join(refused.split())
    shown = komodo_upgrade("start", "--at", "23:59 UTC", "--detach", "-o", "json", code=9)
    assert "no host is contacted before" in shown.stderr
    assert json.loads(shown.stdout)["start_at"].endswith(("23:59:00+00:00", "23:59:00Z"))
