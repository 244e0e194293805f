"""rollback and clean, against a real Temporal server with doubles of the workflows behind it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from model.fleet.spec import TASK_QUEUE, workflow_id
from service.connection import connect
from service.embedded.state import Running
from service.upgrades import servers_at_work
from tests.cli.conftest import Call
from tests.cli.test_running import as_json

Fleet = Callable[..., Path]

# --- rollback ---------------------------------------------------------------------------------------------------------


def test_rollback_plan_reads_the_folders_and_changes_nothing(
    komodo_upgrade: Call, fleet: Fleet, fleet_name: str
) -> None:
    """On a machine whose Temporal does not know the upgrade."""
    fleet("web-1", "lost-1", "never-1")
    planned = as_json(komodo_upgrade, "rollback", "fleet.toml", "--plan")
    assert planned["core_version"] == {"from": "2.3.2", "to": "1.19.5"}
    [server] = planned["servers"]
    assert (server["name"], server["from"], server["to"]) == ("web-1", "2.3.2", "1.19.5")
    assert [one["name"] for one in planned["not_restored"]] == ["lost-1", "never-1"]
    shown = komodo_upgrade("rollback", "--plan").stdout
    for text in ("core   ", "2.3.2 → 1.19.5", "✗ lost-1: it cannot be read", "database: unchanged"):
        assert text in shown
    assert [r for r in as_json(komodo_upgrade, "list") if r["fleet"] == fleet_name] == []


def test_rollback_needs_no_history_and_ends_with_7(komodo_upgrade: Call, fleet: Fleet, fleet_name: str) -> None:
    fleet("web-1", "web-2")
    done = as_json(komodo_upgrade, "rollback", code=7)
    assert done["detail"] == "core=True attempt=2"
    assert [s["name"] for s in done["servers"]] == ["web-1", "web-2"]


@pytest.mark.parametrize("form", [("web-2",), ("--server", "web-2"), ("fleet.toml", "--server", "web-2")])
def test_rollback_of_one_server(form: tuple[str, ...], komodo_upgrade: Call, fleet: Fleet) -> None:
    fleet("web-1", "web-2")
    assert "web-9" in komodo_upgrade("rollback", "fleet.toml", "web-9", code=2).stderr
    done = as_json(komodo_upgrade, "rollback", *form, code=7)
    assert ([s["name"] for s in done["servers"]], done["detail"]) == (["web-2"], "core=False attempt=2")


def test_rollback_of_one_server_by_bare_names_needs_no_fleet_file(
    komodo_upgrade: Call, fleet: Fleet, fleet_name: str, tmp_path: Path
) -> None:
    fleet("web-1", "web-2")
    as_json(komodo_upgrade, "rollback", code=7)
    (tmp_path / "fleet.toml").unlink()
    assert "web-9 is no server" in komodo_upgrade("rollback", fleet_name, "web-9", code=2).stderr
    shown = komodo_upgrade("rollback", fleet_name, "web-2", "--plan").stdout
    assert "Core stays on 2.3.2: these servers are then unreachable from it" in shown
    assert "nothing of the upgrade 20300101T000000Z" in (
        komodo_upgrade("rollback", fleet_name, "web-2", "--change", "20300101T000000Z", code=2).stderr
    )


def test_without_an_upgrade_in_place_rollback_refuses(komodo_upgrade: Call, fleet: Fleet, fleet_name: str) -> None:
    path = fleet("web-1")
    path.write_text(path.read_text().replace(fleet_name, f"{fleet_name}-empty"))
    assert "nothing to roll back" in komodo_upgrade("rollback", code=2).stderr


def test_a_running_upgrade_rolls_itself_back(komodo_upgrade: Call, fleet: Fleet) -> None:
    fleet("web-1")
    komodo_upgrade("start", code=6)
    asked = komodo_upgrade("rollback", "--reason", "wrong window", code=6)
    assert "accepted: rollback" in asked.stderr
    assert "waiting at gate core" not in asked.stderr  # it is not the rollback's gate
    assert "waiting at gate rollback/1: Roll back?" in asked.stderr
    komodo_upgrade("stop")
    komodo_upgrade("status", "--wait", "--timeout", "20s", code=3)
    controls = as_json(komodo_upgrade, "report")["result"]["controls"]
    assert [(c["verb"], c["reason"]) for c in controls] == [("rollback", "wrong window"), ("stop", "")]


# --- clean ------------------------------------------------------------------------------------------------------------


def test_clean_asks_first_and_keeps_what_a_rollback_needs(komodo_upgrade: Call, fleet: Fleet, fleet_name: str) -> None:
    fleet("web-1", "never-1", "lost-1")
    shown = komodo_upgrade("clean", code=5).stdout
    assert "keep    web-1" in shown
    assert "a rollback of the version in place needs it" in shown
    assert "remove  never-1" in shown
    assert "38.1 MiB" in shown
    assert "lost-1 cannot be read: no route to host" in shown
    assert f"nothing was removed; to remove them, add --confirm {fleet_name}" in shown
    assert "is not the name of this fleet" in komodo_upgrade("clean", "--confirm", "prod", code=1).stderr
    done = as_json(komodo_upgrade, "clean", "--confirm", fleet_name)
    assert [(one["name"], one["removed"]) for one in done["removed"]] == [("never-1", ["20260101T000000Z"])]
    assert {row["name"]: bool(row["needed"]) for row in done["folders"]} == {
        "core": True,
        "web-1": True,
        "never-1": False,
        "lost-1": True,
    }
    words = ("clean", "fleet.toml", "--include-needed", "--confirm", fleet_name)
    all_of_it = komodo_upgrade(*words).stdout
    assert "without them, none will be possible" in all_of_it
    assert "core: removed komodo-upgrade-keep-20260101t000000z-core-old" in all_of_it
    assert "nothing to remove" in komodo_upgrade("clean", "--change", "20300101T000000Z").stdout


def test_clean_waits_for_no_running_upgrade(komodo_upgrade: Call, fleet: Fleet) -> None:
    fleet("web-1")
    komodo_upgrade("start", code=6)
    assert "is being upgraded" in komodo_upgrade("clean", code=11).stderr


# --- after a terminate ------------------------------------------------------------------------------------------------


def test_a_server_of_a_terminated_upgrade_is_shown_and_waited_for(
    komodo_upgrade: Call, fleet: Fleet, fleet_name: str, service: Running
) -> None:
    fleet("web-1")
    komodo_upgrade("start", code=6)

    async def terminated_with_a_server_at_work() -> None:
        client = await connect({"target_host": service.address})
        name = workflow_id(fleet_name)
        await client.start_workflow("UpgradeServer", "web-1", id=f"{name}/web-1/7", task_queue=TASK_QUEUE)
        await client.get_workflow_handle(name).terminate()
        while not [one async for one in servers_at_work(client, fleet_name)]:  # noqa: ASYNC110 - its list lags behind
            await asyncio.sleep(0.1)

    async def finish() -> None:
        client = await connect({"target_host": service.address})
        await client.get_workflow_handle(f"{workflow_id(fleet_name)}/web-1/7").signal("finish")

    asyncio.run(terminated_with_a_server_at_work())
    assert as_json(komodo_upgrade, "status", code=3)["at_work"] == ["web-1"]
    later = threading.Timer(3, lambda: asyncio.run(finish()))
    later.start()
    planned = komodo_upgrade("rollback", "--plan")
    later.join()
    assert "web-1: still rolling back after its upgrade was terminated" in planned.stderr
    assert "2.3.2 → 1.19.5" in planned.stdout
    assert komodo_upgrade("start", code=6).stderr.startswith("upgrade 2")
