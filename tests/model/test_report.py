"""The report: everything that a person needs a week later, and nothing that scripts cannot read."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import pytest

from model.facts import (
    Backup,
    CollectionCount,
    ComposeProject,
    ContainerFacts,
    CoreFacts,
    DumpFacts,
    DumpLabel,
    Finding,
    Install,
    PlannedEdit,
    SavedFile,
    ServerFacts,
    ServiceFacts,
    Severity,
)
from model.gates import Control, ControlVerb, Decision, Recorded, Verdict
from model.pages.results import joined, pages_of, shortened
from model.plan import Plan, bind
from model.serialization import moment, span, to_json
from model.status import FleetResult, FleetState, ServerOutcome, ServerState
from model.steps import CoreKey, Proof, Switched
from model.text.report import render_json, render_markdown
from model.text.sections import KEEP_BACKUPS, check_command

START = datetime(2026, 11, 23, 22, 0, tzinfo=UTC)
KEY = "MCowBQYDK2VuAyEAfoBqPtoZMI1yotbbUKmJ0C7EzKwDgOyA5R3tjKtmGwA="


def backup(host: str, *notes: str) -> Backup:
    folder = "/var/lib/komodo-upgrade/prod/20261123T220000Z"
    saved = SavedFile(path="/etc/a", saved_as=f"{folder}/a", sha256="0", note="an older a.bak_v1 was kept")
    return Backup(
        host=host,
        folder=folder,
        files=(saved,),
        restore_command=f"sudo sh {folder}/restore.sh",
        taken_at=START,
        notes=notes,
    )


def upgraded(name: str) -> ServerOutcome:
    started = START + timedelta(minutes=3)
    return ServerOutcome(
        name=name,
        state=ServerState.UPGRADED,
        version_before="1.19.5",
        version_after="2.3.2",
        switched=Switched(
            version="2.3.2",
            invocation="abcdef0123456789",
            started_at=started,
            port_downtime=timedelta(seconds=0.4),
            lines=("Komodo Periphery version: v2.3.2",),
        ),
        proof=Proof(
            by_core=True,
            line="22:03:09 Logged in to Komodo Core komodo.example.com websocket",
            confirmed_at=started,
            unmanaged=timedelta(seconds=21),
            unverified=("stats move",),
        ),
        backup=backup(name),
        pinned_key=KEY,
    )


PROJECT = ComposeProject(name="komodo", directory="/opt/komodo", files=())
AGENT = ServiceFacts(service="periphery", container="komodo-periphery-1", image="i", image_id="sha256:1")


@pytest.fixture
def result() -> FleetResult:
    edit = PlannedEdit(path="/etc/a", kind="env", base_sha256="0", result_sha256="1", diff="-x\n+y\n")
    servers = (
        ServerFacts(name="web-1", unit="periphery.service", edits=(edit,)),
        ServerFacts(name="web-2", unit="komodo agent.service"),
        ServerFacts(name="Local", install=Install.CONTAINER, container=ContainerFacts(project=PROJECT, service=AGENT)),
    )
    core = CoreFacts(version="1.19.5", api=True, edits=(edit,))
    plan = bind(Plan(fleet="prod", target="2.3.2", core=core, servers=servers, waves=(), left_behind=("nas",)))
    failed = ServerOutcome(
        name="web-2",
        state=ServerState.LEFT_ON_V1,
        detail="web-2: no space left\n  next: free 300 MB",
        version_before="1.19.5",
        version_after="1.19.5",
        attempt=2,
    )
    dump = DumpFacts(
        label=DumpLabel.FINAL,
        path="/d/final.gz",
        bytes=2_500_000,
        sha256="0",
        collections=(CollectionCount(name="Server", documents=3), CollectionCount(name="Update", documents=40)),
        taken_at=START,
        seconds=2.4,
    )
    approved = Decision(gate="core", verdict=Verdict.APPROVE, actor="alice", reason="window\nis open")
    return FleetResult(
        fleet="prod",
        target="2.3.2",
        change="20261123T220000Z",
        state=FleetState.INCOMPLETE,
        started_at=START,
        ended_at=START + timedelta(minutes=14, seconds=5),
        plan=plan,
        core_state=ServerState.UPGRADED,
        core_version="2.3.2",
        core_downtime=timedelta(seconds=12),
        core_begun=True,
        image_pins=("keep-core-old", "keep-core-new"),
        key=CoreKey(public_key=KEY, sources=("API GetCoreInfo", "log")),
        servers=(upgraded("web-1"), failed, replace(upgraded("Local"), backup=backup("core"))),
        core_backup=backup("core", "the only dump lies on this disk"),
        dumps=(dump,),
        decisions=(Recorded(decision=approved, at=START),),
        controls=(Control(verb=ControlVerb.PAUSE, actor="bob", reason="lunch"),),
        warnings=(Finding(code="schedules", severity=Severity.WARN, subject="core", text="due", hint="wait"),),
        detail="Core is on 2.3.2; not upgraded: web-2",
    )


def test_markdown_has_for_each_server_what_the_design_names(result: FleetResult) -> None:
    text = render_markdown(result)
    for part in (
        "# Komodo prod: incomplete",
        "(14 min 5 s)",
        f"plan {result.plan.digest}" if result.plan else "",
        "| **Core** | upgraded | 1.19.5 → 2.3.2 | 12 |",
        "| web-1 | upgraded | 1.19.5 → 2.3.2 | 21 |",
        "| web-2 | left on v1 | 1.19.5 |  |",
        "| nas | left on v1 (on purpose) |  |  |",
        "confirmed 2026-11-23 22:03:00 UTC): `22:03:09 Logged in to Komodo Core",
        f"pinned key: `{KEY}`",
        "unmanaged for 21 s",
        "rollback, typed on web-1: `sudo sh /var/lib/komodo-upgrade/prod/20261123T220000Z/restore.sh`",
        "journalctl -u periphery --since @1795471380 | grep -E 'version:|Logged in|using Passkeys'",
        "docker logs --since 2026-11-23T22:03:00+00:00 abcdef012345 2>&1 | grep -E",
        "dump `final`: `/d/final.gz` (2.5 MB, 43 documents in 2 collections",
        "gate core: approve by alice: window is open",
        "- pause by bob: lunch",
        "- core: due — wait [schedules]",
        "- stats move (web-1, Local)",
        "- still to do: web-2",
        "an older a.bak_v1 was kept",
        "keep them until 2026-12-07 at least",
        "- attempts: 2",
        "free 300 MB",
        "together with the folder, on core: `docker rm keep-core-old keep-core-new`",
    ):
        assert part in text, part


def test_what_was_not_measured_and_what_is_not_there_any_more_is_left_out(result: FleetResult) -> None:
    [first, *others] = result.servers
    assert first.proof is not None
    unknown = replace(first, proof=replace(first.proof, unmanaged=timedelta()))
    back = replace(
        result,
        servers=(unknown, others[0]),
        core_begun=False,
        core_state=ServerState.ROLLED_BACK,
        state=FleetState.ROLLED_BACK,
    )
    text = render_markdown(back)
    assert "unmanaged for" not in text
    assert "docker rm" not in text
    incomplete = replace(back, state=FleetState.ROLLBACK_INCOMPLETE)
    assert "docker rm keep-core-old" in render_markdown(incomplete), "a rollback is still possible"


def test_a_folder_that_two_share_is_named_once(result: FleetResult) -> None:
    lines = [line for line in render_markdown(result).splitlines() if line.endswith("on core") and "`/var" in line]
    assert lines == ["- Core, Local: `/var/lib/komodo-upgrade/prod/20261123T220000Z` on core"]


def test_without_an_api_key_the_report_says_what_to_check(result: FleetResult) -> None:
    assert result.plan
    no_api = replace(result, plan=replace(result.plan, core=replace(result.plan.core, api=False)))
    assert "no API key was given" in render_markdown(no_api)
    assert "no API key was given" not in render_markdown(result)


def test_after_a_rollback_no_rollback_is_offered(result: FleetResult) -> None:
    back = replace(
        result,
        state=FleetState.ROLLED_BACK,
        core_state=ServerState.ROLLED_BACK,
        servers=(replace(upgraded("web-1"), state=ServerState.ROLLED_BACK),),
    )
    text = render_markdown(back)
    assert "rollback, typed" not in text.split("## Backups")[0]
    assert "## Tomorrow" not in text
    assert "Tomorrow" not in text


@pytest.mark.parametrize("state", list(FleetState))
def test_every_end_has_a_headline_even_with_nothing_known(state: FleetState) -> None:
    bare = FleetResult(fleet="p", target="2.3.2", change="c", state=state, started_at=START, ended_at=START)
    assert render_markdown(bare).startswith("# Komodo p: ")
    assert json.loads(render_json(bare))["result"]["state"] == state.value


def test_refusals_are_listed_with_hints() -> None:
    refused = Finding(code="no-space", severity=Severity.REFUSE, subject="core", text="full", hint="free some space")
    bare = FleetResult(
        fleet="p",
        target="2.3.2",
        change="c",
        state=FleetState.REFUSED,
        started_at=START,
        ended_at=START,
        refusals=(refused,),
    )
    assert "## Refused because of\n\n- core: full — free some space [no-space]" in render_markdown(bare)


def test_json_has_times_seconds_and_words_and_no_diffs(result: FleetResult) -> None:
    found = json.loads(render_json(result))["result"]
    assert found["started_at"] == "2026-11-23T22:00:00+00:00"
    assert found["core_downtime"] == 12.0
    assert found["servers"][1]["state"] == "left on v1"
    assert found["plan"]["core"]["edits"][0]["diff"] == ""
    edit = found["plan"]["servers"][0]["edits"][0]
    assert (edit["path"], edit["result_sha256"], edit["diff"]) == ("/etc/a", "1", "")


def test_it_is_the_same_text_every_time(result: FleetResult) -> None:
    """Workflows render it: a replay must give the same bytes."""
    assert render_markdown(result) == render_markdown(replace(result))
    assert render_json(result) == render_json(replace(result))


def test_units_with_blanks_are_quoted(result: FleetResult) -> None:
    outcome = replace(upgraded("web-2"))
    assert "journalctl -u 'komodo agent' --since" in check_command(outcome, result)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (0.42, "0.4 s"),
        (9, "9 s"),
        (59.6, "1 min"),
        (60, "1 min"),
        (61, "1 min 1 s"),
        (7260, "2 h 01 min"),
        (3 * 86400, "3 days"),
    ],
)
def test_spans(seconds: float, text: str) -> None:
    assert span(timedelta(seconds=seconds)) == text


def test_moments_name_their_zone() -> None:
    assert moment(START) == "2026-11-23 22:00:00 UTC"
    assert moment(START.astimezone(timezone(timedelta(hours=2)))) == "2026-11-24 00:00:00 +0200"
    assert timedelta(days=7) <= KEEP_BACKUPS


def test_pages_hold_everything_once(result: FleetResult) -> None:
    findings = tuple(Finding(code="c", severity=Severity.WARN, subject=f"web-{n}", text="t") for n in range(5))
    whole = replace(result, warnings=findings, refusals=findings[:1])
    pages = pages_of(whole, 2)
    assert len(pages) == 3
    assert all(len(page.servers) <= 2 and len(page.warnings) <= 2 for page in pages)
    assert not pages[1].dumps
    assert not pages[1].decisions
    assert joined(pages) == whole
    assert joined(pages_of(replace(result, plan=None), 2)) == replace(result, plan=None)


def test_the_result_of_a_large_fleet_keeps_states_and_proofs(result: FleetResult) -> None:
    assert shortened(result) == result
    many = replace(result, servers=tuple(upgraded(f"web-{n}") for n in range(101)))
    short = shortened(many)
    assert [(o.name, o.state, o.proof) for o in short.servers] == [(o.name, o.state, o.proof) for o in many.servers]
    assert short.plan
    assert many.plan
    assert (short.plan.digest, short.plan.servers) == (many.plan.digest, ())
    assert len(to_json(short)) < len(to_json(many)) / 2
