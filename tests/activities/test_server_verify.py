"""The proof that a server is upgraded, from Core and from the agent, against the sandbox."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from model.errors import NotProven
from model.facts import ComposeProject, ContainerFacts, ServerFacts, ServiceFacts
from model.steps import Operation, ServerStep, Switched
from tests.activities.server_fleet import CHANGE, NEW, OLD, WRONG, Fleet, fleet_of


@pytest.fixture
async def old(tmp_path: Path) -> AsyncIterator[Fleet]:
    """Core and its one agent on v1."""
    async with fleet_of(tmp_path, core_version=OLD) as made:
        yield made


async def test_a_wrong_key_behind_a_stale_ok_is_not_verified(fleet: Fleet) -> None:
    """The agent was Ok a moment ago, and Core still says so: the agent's own log unmasks it."""
    fleet = fleet.inline()
    step = await fleet.ready("web-1")
    good = await fleet.switch(step)
    await fleet.verify(step, good)
    fleet = fleet.short()
    config = fleet.config("web-1")
    config.write_text(config.read_text().replace(fleet.key, WRONG))
    systemd = fleet.sandbox.hosts["web-1"].systemd
    service = systemd.find("periphery.service")
    assert service is not None
    await systemd.stop(service)
    await systemd.start(service)
    with pytest.raises(NotProven) as caught:
        await fleet.verify(replace(step, key=WRONG), replace(good, invocation=service.invocation))
    assert "another Core's key" in str(caught.value)
    assert not caught.value.transient


async def test_an_agent_that_hangs_is_not_verified(fleet: Fleet) -> None:
    """It stays logged in, and Core calls it Ok."""
    step = await fleet.ready("web-1")
    switched = await fleet.switch(step)
    fleet.sandbox.fault("agent-silent", "web-1")
    with pytest.raises(NotProven, match="connected, but does not answer Core's requests"):
        await fleet.short().verify(step, switched)
    fleet.sandbox.heal()
    await fleet.verify(step, switched)


async def test_an_agent_with_passkeys_is_not_verified(fleet: Fleet) -> None:
    step = await fleet.ready("web-1")
    switched = await fleet.switch(step)
    fleet = fleet.short()
    config = fleet.config("web-1")
    config.write_text("\n".join(x for x in config.read_text().splitlines() if not x.startswith("core_public_keys")))
    systemd = fleet.sandbox.hosts["web-1"].systemd
    service = systemd.find("periphery.service")
    assert service is not None
    await systemd.stop(service)
    await systemd.start(service)
    with pytest.raises(NotProven) as caught:
        await fleet.verify(step, switched)
    assert "without Core's key" in str(caught.value)


async def test_without_an_api_key_the_proof_comes_from_the_journal(fleet: Fleet) -> None:
    step = await fleet.ready("web-1")
    switched = await fleet.switch(step)
    proof = await fleet.verify(step, switched, core=replace(fleet.core, api=False))
    assert not proof.by_core
    assert "Logged in" in proof.line
    assert "API key" in proof.unverified[0]


def _core_was_stopped(folder: Path, *, ago: timedelta) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "core-stopped-at").write_text(f"{datetime.now(UTC) - ago:%Y-%m-%dT%H:%M:%SZ}\n")


async def test_downtime_of_a_server_begins_with_the_stop_of_core(fleet: Fleet) -> None:
    """Not from its own switch: the last of many servers waits longest."""
    step = await fleet.ready("web-1")
    switched = await fleet.switch(step)
    alone = await fleet.verify(step, switched)
    assert alone.unmanaged < timedelta(seconds=60)
    _core_was_stopped(Path(step.op.folder(fleet.spec.core.host.state_dir)), ago=timedelta(seconds=600))
    proof = await fleet.verify(step, switched)
    assert timedelta(seconds=590) < proof.unmanaged < timedelta(seconds=660)


async def test_in_a_rollback_core_v1_confirms_the_agent(old: Fleet) -> None:
    service = old.sandbox.hosts["web-1"].systemd.find("periphery.service")
    assert service is not None
    now = datetime.now(UTC)
    step = ServerStep(
        op=Operation(change=CHANGE, fleet="sandbox", target="web-1"),
        server=old.server("web-1"),
        facts=await old.survey("web-1"),
        target=NEW,
    )
    back = Switched(version=OLD, invocation="", started_at=now, port_downtime=timedelta(), lines=())
    core = replace(old.core, version=OLD)
    proof = await old.verify(step, back, core=core, expected_version=OLD, key="")
    assert proof.by_core
    assert f"version: v{OLD}" in proof.line
    alone = await old.verify(step, back, core=replace(core, api=False), expected_version=OLD, key="")
    assert not alone.by_core
    assert alone.unverified
    with pytest.raises(NotProven) as caught:
        await old.short().verify(step, back, core=core, expected_version="1.18.4", key="")
    assert OLD in str(caught.value)
    assert "within 4 s" in str(caught.value), "v1 checks once a second here: fewer than two of its checks prove nothing"


async def test_the_agent_in_cores_project_is_verified_by_the_log_of_its_container(fleet: Fleet) -> None:
    """Core may see it: where its container has logged nothing since the switch, it is not proven."""
    step = await fleet.step("web-1")
    begun = datetime.now(UTC) - timedelta(minutes=5)
    running = Switched(version=NEW, invocation="", started_at=begun, port_downtime=timedelta(), lines=())
    service = ServiceFacts(service="periphery", container="komodo-periphery-1", image="i", image_id="sha256:1")
    project = ComposeProject(name="komodo", directory="/opt/komodo", files=())
    local = replace(step.server, name="Local")
    facts = ServerFacts(name="Local", container=ContainerFacts(project=project, service=service))
    with pytest.raises(NotProven) as caught:
        await fleet.short().verify(step, running, server=local, facts=facts)
    assert "version (none), not 2.3.2" in str(caught.value)
    assert "docker logs komodo-periphery-1" in str(caught.value)
