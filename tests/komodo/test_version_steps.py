"""What a version step changes for documents in Core's database."""

from __future__ import annotations

from typing import Any

import pytest

from komodo.actions import short_lists
from komodo.core.version_steps import findings, stack_findings
from komodo.releases import NEWEST_KNOWN, version_of
from model.facts import ComposeProject
from model.fleet.values import RELEASES

LISTS = 'const all = await komodo.read("ListServers", {});\n'
TERMINAL = 'await komodo.execute_terminal({ server: "a", command: "x" }, {});\n'
REQUEST = "const answer = await fetch(`https://${host}:8120/`, { method: 'POST' });\n"
NO_REQUEST = (
    'await komodo.write("CreateServer", { name: "a", config: { address: "https://a:8120" } });\n'
    '// await fetch("https://a:8120")\n'
    'await fetch("https://a:81200"); await fetch("https://a/8120");\n'
)
OLD, NEW = {"domain": "docker.io", "username": "me"}, {"domain": "ghcr.io", "username": "you"}


def documents(**more: Any) -> dict[str, Any]:
    backup = {"schedule": "daily", "stages": [{"executions": [{"execution": {"type": "BackupCoreDatabase"}}]}]}
    usual: dict[str, Any] = {
        "actions": [], "procedures": [{"config": backup}], "builders": [], "old_accounts": [], "new_accounts": [],
    }  # fmt: skip
    return {**usual, **more}


def action(text: str) -> list[dict[str, Any]]:
    return [{"name": "a1", "config": {"file_contents": text}}]


@pytest.mark.parametrize(
    ("now", "target", "found", "codes"),
    [
        ("2.0.0", "2.3.3", documents(), set()),
        ("2.3.3", "2.3.3", documents(actions=action(LISTS + TERMINAL)), set()),
        ("1.19.5", "2.2.0", documents(actions=action(LISTS + TERMINAL)), {"action-v1-style", "actions-npm"}),
        ("1.19.5", "2.3.3", documents(actions=action(LISTS)), {"action-short-lists", "actions-npm"}),
        ("2.2.0", "2.3.0", documents(actions=action(LISTS + TERMINAL)), {"action-short-lists"}),
        ("1.19.5", "2.2.0", documents(actions=action(REQUEST)), {"agent-api-used", "actions-npm"}),
        ("1.19.5", "2.2.0", documents(actions=action(NO_REQUEST)), {"actions-npm"}),
        ("2.2.0", "2.2.1", documents(actions=action(REQUEST)), set()),
        ("2.3.0", "2.3.3", documents(actions=action(LISTS)), set()),
        ("2.2.0", "2.3.3", documents(procedures=[]), set()),
        ("1.19.5", "2.2.0", documents(procedures=[]), {"no-backup-procedure"}),
        ("2.3.3", "2.9.7", documents(), {"target-not-known"}),
        ("2.2.0", "2.3.3", documents(old_accounts=[OLD]), set()),
        ("2.2.0", "2.3.0", documents(old_accounts=[OLD]), {"registry-accounts"}),
        ("2.3.0", "2.3.3", documents(old_accounts=[OLD], new_accounts=[NEW]), {"registry-accounts"}),
        ("2.2.0", "2.3.3", documents(new_accounts=[NEW]), set()),
        (
            "2.2.0",
            "2.3.3",
            documents(builders=[{"name": "aws", "config": {"params": {"docker_registries": [{"domain": "r"}]}}}]),
            {"builder-registries"},
        ),
        ("2.2.0", "2.3.3", documents(builders=[{"name": "aws", "config": {"params": {}}}]), set()),
        ("", "2.3.3", documents(actions=action(LISTS)), set()),
    ],
)
def test_steps(now: str, target: str, found: dict[str, Any], codes: set[str]) -> None:
    assert {f.code for f in findings(found, now, target)} == codes


def test_accounts_that_are_not_found_are_named_without_their_tokens() -> None:
    given = documents(old_accounts=[{**OLD, "token": "secret"}], new_accounts=[NEW])
    (finding,) = findings(given, "2.2.0", "2.3.3")
    assert "me of docker.io" in finding.text
    assert "secret" not in finding.text


def test_lists_without_a_limit() -> None:
    text = (
        'await komodo.read("ListServers", {});\n'
        "await komodo.read('ListStacks');\n"
        'await komodo.read("ListFullActions", { query: { limit: 3 } });\n'
        'await komodo.read("ListProcedures", { query: {}, limit: 0 });\n'
        'await komodo.read("ListDeployments", { ...paging });\n'
        'await komodo.read("ListBuilds", options);\n'
        'await komodo.read("ListUpdates", {});\n'
        'await komodo.read("GetServer", { server: "a" });\n'
        '// await komodo.read("ListServers", {});\n'
        "const s = 'komodo.read(\"ListServers\", {})';\n"
    )
    assert [(c.line, c.call) for c in short_lists(text)] == [
        (1, "ListServers"),
        (2, "ListStacks"),
        (3, "ListFullActions"),
    ]


def test_a_stack_that_may_be_core_itself() -> None:
    project = ComposeProject(name="komodo", directory="/opt/komodo", files=("c.yaml",), env_file="")
    host = {"name": "core", "config": {"project_name": "komodo", "files_on_host": True, "run_directory": "/opt/komodo"}}
    other = {"name": "komodo", "config": {}}
    first, second = stack_findings([host, other, {"name": "web", "config": {}}], project)
    assert first.code == second.code == "core-is-a-stack"
    assert first.hint == "do not deploy it while the upgrade runs"
    assert "if it is Core itself" in second.hint
    assert stack_findings([host], None) == []


def test_the_newest_version_known_is_one() -> None:
    assert version_of(RELEASES[-1]) == NEWEST_KNOWN
