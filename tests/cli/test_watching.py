"""The watch after an upgrade in the commands: its exit code, its part of the report, its end."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path

from model.fleet.spec import workflow_id
from model.watch import watch_id
from service.connection import connect
from service.embedded import lifecycle
from service.embedded.state import Running
from service.upgrades import running, watches
from tests.cli.conftest import Call


def test_its_findings_are_shown_until_another_upgrade_starts(
    komodo_upgrade: Call, fleet: Callable[..., Path], fleet_name: str, service: Running
) -> None:
    fleet("watched-1")
    komodo_upgrade("start", "--detach", code=6)
    komodo_upgrade("approve", "--confirm", fleet_name)
    komodo_upgrade("watch")  # to the end of the upgrade, not of the watch

    shown = komodo_upgrade("status", code=8).stdout
    assert f"{fleet_name} → 2.3.2: upgraded after" in shown
    assert "watch over it: watching, 1 check" in shown
    assert "! core: 37 defunct — init: true [zombies, " in shown
    reported = json.loads(komodo_upgrade("status", "--wait", "-o", "json", code=8).stdout)
    assert (reported["state"], reported["watch"]["state"]) == ("upgraded", "watching")
    assert "## Watch" in komodo_upgrade("report").stdout
    report = json.loads(komodo_upgrade("report", "-o", "json").stdout)
    assert report["watch"]["found"][0]["finding"]["code"] == "zombies"
    late = komodo_upgrade("status", "--watched", "--timeout", "1s", code=124)
    assert "Ctrl-C ends this command, not the watch" in late.stderr
    shown = asyncio.run(_when_the_service_stops(service, fleet_name))
    assert "pauses until the next `komodo-upgrade up`" in shown
    assert fleet_name in shown

    komodo_upgrade("start", "--detach", code=6)
    assert asyncio.run(_end_of_watch(service, fleet_name, reported["change"])) == "ended early"


async def _when_the_service_stops(service: Running, fleet: str) -> str:
    client = await connect({"target_host": service.address})
    assert fleet in [found.fleet for found in await watches(client)]
    assert fleet not in [run.fleet for run in await running(client)], "it keeps no service up and no machine awake"
    shown: list[str] = []
    await lifecycle._report_watches(client, shown.append)
    return "\n".join(shown)


async def _end_of_watch(service: Running, fleet: str, change: str) -> str:
    client = await connect({"target_host": service.address})
    handle = client.get_workflow_handle(watch_id(workflow_id(fleet), change))
    result = await asyncio.wait_for(handle.result(), 20)
    return str(result["state"])
