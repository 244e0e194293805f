"""The plan as a file: what is written, what is refused when it is read, and what a run may do with it."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from cli.plan_file import LARGEST, read, write
from model.errors import PlanFileError, UpgradeError
from model.facts import (
    ComposeProject,
    ContainerFacts,
    CoreFacts,
    Finding,
    PlannedEdit,
    ServerFacts,
    ServiceFacts,
    Severity,
)
from model.plan import OTHER_PLAN, Plan, approved, refuse_unapproved
from model.planning import make_plan
from tests.cli.conftest import Call
from tests.workflows.doubles import core_facts, fleet, refusal, server_facts

NOW = datetime(2026, 12, 1, 11, tzinfo=UTC)
FLEET = fleet(3)
PROJECT = ComposeProject(name="agents", directory="/srv/agents", files=("/srv/agents/compose.yaml",))


def service(name: str = "agent", digest: str = "") -> ServiceFacts:
    image = "ghcr.io/moghtech/komodo-periphery"
    return ServiceFacts(
        service=name, container="c", image=f"{image}:1", image_id="sha256:1", target_image=f"{image}:2.3.2",
        target_digest=digest,
    )  # fmt: skip


def plan_of(*, core: CoreFacts | None = None, **servers: ServerFacts) -> Plan:
    known = {f"web-{i}": server_facts(f"web-{i}") for i in (1, 2, 3)}
    known |= {name.replace("_", "-"): facts for name, facts in servers.items()}
    return make_plan(FLEET, "change", core or core_facts(agent=True), known)


def written(folder: Path, plan: Plan | None = None) -> Path:
    path = folder / "plan.json"
    write(path, plan or plan_of(), NOW)
    return path


def test_what_was_written_is_read(tmp_path: Path) -> None:
    plan = plan_of(
        web_2=replace(
            server_facts("web-2"),
            container=ContainerFacts(project=PROJECT, in_core_project=False, service=service(digest="sha256:ab")),
        )
    )
    path = written(tmp_path, plan)
    assert path.stat().st_mode & 0o777 == 0o600
    assert [p.name for p in tmp_path.iterdir()] == ["plan.json"]
    found = read(path, FLEET)
    assert found == approved(plan)
    assert refuse_unapproved(plan, found) == plan


def test_a_file_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(UpgradeError, match="No such file"):
        write(tmp_path / "no" / "plan.json", plan_of(), NOW)
    (tmp_path / "plan.json").mkdir()
    with pytest.raises(UpgradeError, match="the file is as it was"):
        write(tmp_path / "plan.json", plan_of(), NOW)
    assert [p.name for p in tmp_path.iterdir()] == ["plan.json"]


def _edit(change: Callable[[dict[str, Any]], object]) -> Callable[[str], str]:
    def edit(text: str) -> str:
        document = json.loads(text)
        change(document)
        return json.dumps(document)

    return edit


CHANGES: dict[str, tuple[Callable[[str], str], str]] = {
    "another kind": (_edit(lambda d: d.update(kind="x")), "it is no plan of komodo-upgrade"),
    "another version": (_edit(lambda d: d.update(version=2)), "its format is 2"),
    "a version that acts on a terminal": (_edit(lambda d: d.update(version="\x1b[2J")), r"its format is \\x1b"),
    "another diff": (_edit(lambda d: d["plan"]["core"]["edits"][0].update(diff="+z")), "its sha256 is another one"),
    "another edit": (_edit(lambda d: d["plan"]["core"]["edits"][0].update(result_sha256="0")), "its sha256 is another"),
    "another digest": (_edit(lambda d: d.update(digest="0" * 16)), "the plan's digest is another one"),
    "no plan": (_edit(lambda d: d.pop("plan")), "sha256"),
    "a list": (lambda _: "[]", "it is no plan of komodo-upgrade"),
    "no JSON": (lambda text: text[:-20], "it is no JSON document"),
    "NaN": (lambda text: text.replace('"version": 1', '"version": NaN', 1), "it is no JSON document"),
    "nested": (lambda _: "[" * 100_000, "it is no JSON document"),
    "empty": (lambda _: "", "it is no JSON document"),
    "a long number": (lambda _: "9" * 10_000, "it is no JSON document"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_file_that_was_changed_is_refused(tmp_path: Path, name: str) -> None:
    change, why = CHANGES[name]
    path = written(tmp_path)
    path.write_text(change(path.read_text()))
    with pytest.raises(PlanFileError, match=why) as error:
        read(path, FLEET)
    assert "\x1b" not in str(error.value)


def _resealed(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """As an attacker changes it: with a new sha256."""
    from cli.plan_file import _digest

    document = json.loads(path.read_text())
    change(document["plan"])
    path.write_text(json.dumps(document | {"sha256": _digest(document["plan"])}))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda p: p["core"]["edits"][0].update(result_sha256="0" * 64), "the plan's digest is another one"),
        (lambda p: p.update(target="2.3.1"), "the plan's digest is another one"),
        (lambda p: p.update(digest=""), "the plan's digest is another one"),
        (lambda p: p.update(unknown=1), "what this release does not know"),
        (lambda p: p.pop("core"), "cannot be read"),
        (lambda p: p.update(servers=5), "cannot be read"),
    ],
)
def test_a_file_with_a_new_sha256_is_refused_too(tmp_path: Path, change: Any, why: str) -> None:
    path = written(tmp_path)
    _resealed(path, change)
    with pytest.raises(PlanFileError, match=why):
        read(path, FLEET)


def test_what_is_no_file_of_a_usual_size_is_refused(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.json"
    os.mkfifo(pipe)
    large = tmp_path / "large.json"
    with large.open("wb") as file:
        file.truncate(LARGEST + 1)
    for path, why in ((pipe, "a pipe"), (large, "larger than"), (tmp_path, "a directory"), (tmp_path / "x", "No such")):
        with pytest.raises(PlanFileError, match=why):
            read(path, FLEET)


def test_a_plan_of_another_fleet_or_a_refused_one_is_not_used(tmp_path: Path) -> None:
    with pytest.raises(PlanFileError, match="it is a plan of prod, not of other"):
        read(written(tmp_path), replace(FLEET, name="other"))
    with pytest.raises(PlanFileError, match="was refused when it was made"):
        read(written(tmp_path, plan_of(web_1=replace(server_facts("web-1"), findings=(refusal("web-1"),)))), FLEET)


# --- what a run compares ----------------------------------------------------------------------------------------------

OTHER_EDIT = PlannedEdit(path="/x", kind="env", base_sha256="1", result_sha256="2", diff="--- a\n+++ b\n-old\n+new")
SERVER_CHANGES: dict[str, Any] = {
    "version": "1.19.4", "binary": "/usr/bin/periphery", "binary_sha256": "other", "artifact_sha256": "other",
    "config_paths": ("/other",), "edits": (OTHER_EDIT,), "connect_to": "wss://x",
    "container": ContainerFacts(project=PROJECT, in_core_project=False, service=service()),
}  # fmt: skip
CORE = core_facts(agent=True)
CORE_CHANGES: dict[str, Any] = {
    "version": "1.19.4", "edits": (OTHER_EDIT,), "core": service("core"), "agent": service(),
    "database": CORE.database and replace(CORE.database, image="mongo:8"),
}  # fmt: skip


CONFIG = "/etc/komodo/periphery.config.toml"
NEW = "; its edits are now:\n"


def others(plan: Plan, before: Plan) -> dict[str, str]:
    found = refuse_unapproved(plan, approved(before)).findings
    return {f.subject: f"{f.text}\n{f.hint.partition(NEW)[2]}".strip() for f in found if f.code == OTHER_PLAN}


@pytest.mark.parametrize("key", SERVER_CHANGES)
def test_whatever_changes_the_digest_by_a_server_refuses_this_server(key: str) -> None:
    facts = replace(server_facts("web-2"), artifact_sha256="planned")
    before, after = plan_of(web_2=facts), plan_of(web_2=replace(facts, **{key: SERVER_CHANGES[key]}))
    assert before.digest != after.digest
    assert list(others(after, before)) == ["web-2"]


@pytest.mark.parametrize("key", CORE_CHANGES)
def test_whatever_changes_the_digest_by_core_refuses_core(key: str) -> None:
    before, after = plan_of(), plan_of(core=replace(CORE, **{key: CORE_CHANGES[key]}))
    assert before.digest != after.digest
    assert "core" in others(after, before)


def test_the_new_diff_is_shown_and_bounded() -> None:
    long = replace(OTHER_EDIT, diff="\n".join(f"+{i}" for i in range(100)))
    text = others(plan_of(web_1=replace(server_facts("web-1"), edits=(OTHER_EDIT,))), plan_of())["web-1"]
    assert text == f"it differs from the approved plan in: /x, {CONFIG}\n--- a\n+++ b\n-old\n+new"
    text = others(plan_of(web_1=replace(server_facts("web-1"), edits=(long,))), plan_of())["web-1"]
    assert len(text.splitlines()) == 42
    many = fleet(30)
    facts = {s.name: server_facts(s.name) for s in many.servers}
    before = make_plan(many, "c", CORE, facts)
    after = make_plan(many, "c", CORE, {n: replace(f, edits=(long,)) for n, f in facts.items()})
    texts = others(after, before)
    assert len(texts) == 30
    assert sum("+1" in text for text in texts.values()) == 10


def test_digests_of_images_and_binaries_that_were_unknown_may_become_known_but_not_other_ones() -> None:
    def container(digest: str) -> ServerFacts:
        return replace(
            server_facts("web-1"),
            container=ContainerFacts(project=PROJECT, in_core_project=False, service=service(digest=digest)),
        )

    unknown, known, other = (plan_of(web_1=container(digest)) for digest in ("", "sha256:a", "sha256:b"))
    assert others(known, unknown) == {}
    assert "service: new image" in others(other, known)["web-1"]
    assert "service: new image" in others(unknown, known)["web-1"]
    binary = [plan_of(web_1=replace(server_facts("web-1"), artifact_sha256=text)) for text in ("", "a")]
    assert others(binary[1], binary[0]) == {}
    assert "new binary" in others(binary[0], binary[1])["web-1"]


def test_servers_that_are_done_or_offline_are_not_compared() -> None:
    before = plan_of()
    assert others(plan_of(web_1=server_facts("web-1", current=True)), before) == {}
    assert others(plan_of(core=core_facts(current=True)), plan_of(core=core_facts())) == {}
    away = Finding(code="unreachable", severity=Severity.REFUSE, subject="web-3", text="no route")
    offline = plan_of(web_3=ServerFacts(name="web-3", findings=(away,)))
    assert offline.offline == ("web-3",)
    assert others(offline, before) == {}
    assert "was offline when that was made" in others(before, offline)["web-3"]


def test_other_servers_and_another_order_are_refused() -> None:
    before = plan_of()
    facts = {s.name: server_facts(s.name) for s in fleet(4).servers}
    assert "not in the approved plan" in others(make_plan(fleet(4), "c", CORE, facts), before)["web-4"]
    assert others(make_plan(fleet(2), "c", CORE, facts), before)["fleet"] == "the approved plan also has web-3"
    turned = make_plan(replace(FLEET, servers=FLEET.servers[::-1]), "c", CORE, facts)
    assert others(turned, before)["fleet"] == "the approved order is another one: Local, web-1, web-2, web-3"
    target = make_plan(replace(FLEET, target="2.3.1"), "c", CORE, facts)
    assert "the approved plan is for 2.3.2" in others(target, before)["fleet"]


def test_a_finding_of_an_earlier_comparison_does_not_stay() -> None:
    before, after = plan_of(), plan_of(web_1=replace(server_facts("web-1"), edits=(OTHER_EDIT,)))
    once = refuse_unapproved(after, approved(before))
    assert refuse_unapproved(once, approved(before)) == once
    assert refuse_unapproved(once, approved(after)) == after


def test_approved_plans_hold_digests_only() -> None:
    texts = [part for host in approved(plan_of()).hosts for part in host.parts.values()]
    assert {len(text) for text in texts} <= {0, 16}
    assert {f.name for f in dataclasses.fields(approved(plan_of()))} == {"digest", "target", "mode", "order", "hosts"}


# --- the commands -----------------------------------------------------------------------------------------------------


def test_plan_writes_the_file_that_start_takes(komodo_upgrade: Call, fleet: Any, tmp_path: Path) -> None:
    fleet("web-1")
    path = tmp_path / "plan.json"
    shown = komodo_upgrade("plan", "-o", str(path), code=5)
    assert "plan digest" in shown.stdout
    assert f"wrote {path}" in shown.stderr
    digest = json.loads(path.read_text())["digest"]
    started = komodo_upgrade("start", "--plan", str(path), code=6)
    assert f"it does what plan {digest} says, or refuses" in started.stderr
    path.write_text(path.read_text().replace("+new", "+worse"))
    assert "was changed after it was written" in komodo_upgrade("start", "--plan", str(path), code=2).stderr
    assert "neither text nor json" in komodo_upgrade("plan", "-o", "xml", code=2).stderr


@pytest.mark.parametrize(("server", "code"), [("web-1", 2), ("bad-1", 1), ("current-1", 0)])
def test_the_exit_codes_of_terraform(server: str, code: int, komodo_upgrade: Call, fleet: Any, tmp_path: Path) -> None:
    fleet(server)
    path = tmp_path / "plan.json"
    komodo_upgrade("plan", "--detailed-exitcode", "-o", str(path), code=code)
    assert path.exists() == (code != 1)
    assert "no such file" in komodo_upgrade("plan", "nowhere.toml", "--detailed-exitcode", code=1).stderr
