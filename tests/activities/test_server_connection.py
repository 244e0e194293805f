"""From an inbound to an outbound connection and back, without an onboarding key."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from activities.server.connection import Connections
from model.errors import PermissionRefused
from model.facts import CoreFacts, CoreRef, Severity
from model.fleet.spec import Connection
from model.steps import ConnectServer, SavedServerStep, SwitchServer
from tests.activities.server_fleet import Fleet, codes, fleet_of, run


async def upgraded(fleet: Fleet) -> SwitchServer:
    """A server that is to connect to Core, after its switch to v2 and its proof."""
    url = f"ws://{fleet.sandbox.hosts['core'].address}:9120"
    spec = replace(fleet.spec, core=replace(fleet.spec.core, agents_url=url))
    servers = tuple(replace(server, connection=Connection.OUTBOUND) for server in spec.servers)
    fleet.spec = replace(spec, servers=servers)
    facts = await fleet.survey("web-1")
    assert not codes(facts, Severity.REFUSE), facts.findings
    assert facts.connect_to == url
    step = await fleet.ready("web-1")
    await fleet.verify(step, await fleet.switch(step))
    return step


def connection(fleet: Fleet, step: SwitchServer) -> ConnectServer:
    core: CoreFacts = fleet.core
    place = f"{fleet.sandbox.hosts['core'].address}:9120"
    core = replace(core, published=place)
    access = CoreRef(spec=fleet.spec.core, facts=core)
    return ConnectServer(**step.basis(), backup=step.backup, core=access, key=fleet.key)


def server(fleet: Fleet) -> tuple[str, str, str]:
    """Address, external address and the pinned key of the Server."""
    [document] = fleet.sandbox.store.find("komodo", "Server", {"name": "web-1"})
    config = document["config"]
    return config["address"], config["external_address"], document["info"]["public_key"]


async def test_a_server_connects_to_core_and_core_to_it_again(tmp_path: Path) -> None:
    async with fleet_of(tmp_path) as fleet:
        change = {"$set": {"config.external_address": "https://web.example.net"}}
        fleet.sandbox.store.update("komodo", "Server", {"name": "web-1"}, change, many=False, upsert=False)
        step = await upgraded(fleet)
        before, text = server(fleet), fleet.config("web-1").read_text()
        asked, activities = connection(fleet, step), Connections(fleet.hosts)

        switched = await run(activities.connect_server, asked)
        assert await run(activities.connect_server, asked) == switched, "a repeated call finds what is done"
        proof = await fleet.verify(step, switched)
        assert proof.line.endswith("as Server web-1")
        agent = fleet.sandbox.hosts["web-1"].systemd.services["periphery.service"].agent
        assert agent is not None
        assert server(fleet) == ("", "https://web.example.net", agent.public_key)
        assert 'connect_as = "web-1"' in fleet.config("web-1").read_text()

        for _ in range(2):
            await run(activities.disconnect_server, asked)
            assert server(fleet)[:2] == before[:2]
            assert fleet.config("web-1").read_text() == text
        again = await run(activities.connect_server, replace(asked, op=replace(asked.op, attempt=2)))
        assert (await fleet.verify(step, again)).line.endswith("as Server web-1")
        saved = SavedServerStep(**step.basis(), backup=step.backup, core=asked.core)
        restored = await fleet.restore(replace(saved, op=replace(saved.op, attempt=2)))
        assert (restored.version, server(fleet)[:2]) == ("1.19.5", before[:2])


async def test_a_cancelled_change_is_finished_or_undone(tmp_path: Path) -> None:
    async with fleet_of(tmp_path) as fleet:
        step = await upgraded(fleet)
        before, text = server(fleet), fleet.config("web-1").read_text()
        asked, activities = connection(fleet, step), Connections(fleet.hosts)
        fleet.sandbox.fault("slow", "web-1", seconds=1, command="systemctl")
        work = asyncio.ensure_future(run(activities.connect_server, asked))
        while server(fleet)[0]:
            assert not work.done(), work
            await asyncio.sleep(0.02)
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)
        fleet.sandbox.heal()
        await run(activities.disconnect_server, asked)
        assert server(fleet)[:2] == before[:2]
        assert fleet.config("web-1").read_text() == text


async def test_where_core_cannot_be_reached_nothing_is_planned(tmp_path: Path) -> None:
    async with fleet_of(tmp_path) as fleet:
        outbound = {"connection": Connection.OUTBOUND}
        assert codes(await fleet.survey("web-1", **outbound), Severity.REFUSE) == {"agents-url"}
        fleet.spec = replace(fleet.spec, core=replace(fleet.spec.core, agents_url="wss://komodo.invalid"))
        facts = await fleet.survey("web-1", **outbound)
        assert codes(facts, Severity.REFUSE) == {"agents-url"}
        assert "Could not resolve host" in next(f.text for f in facts.findings if f.code == "agents-url")


async def test_a_config_that_cannot_be_written_is_undone(tmp_path: Path) -> None:
    async with fleet_of(tmp_path) as fleet:
        step = await upgraded(fleet)
        fleet.sandbox.fault("read-only", "web-1", path="etc")
        with pytest.raises(PermissionRefused):
            await run(Connections(fleet.hosts).connect_server, connection(fleet, step))
        fleet.sandbox.heal()
        await run(Connections(fleet.hosts).disconnect_server, connection(fleet, step))
        assert server(fleet)[0]
