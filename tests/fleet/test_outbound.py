"""v2.x to v2.y of a fleet that was installed as v2, with agents that connect to Core by themselves, and back."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from temporalio.client import Client

from model.fleet.spec import TASK_QUEUE, Connection, workflow_id
from model.rollback import rollback_request
from model.status import FleetResult, FleetState, ServerState
from tests.fleet.conftest import serving


async def test_outbound_agents_keep_their_connection(tmp_path: Path, temporal: Client) -> None:
    """From start to rollback: Core's own agent and one of two servers connect by themselves."""
    v2 = {"files": "v2", "core_version": "2.0.0", "agent_version": "2.0.0", "outbound": ("db-1",)}
    async with serving(tmp_path, temporal, 2, **v2) as fleet:
        config = fleet.sandbox.hosts["db-1"].root / "etc/komodo/periphery.config.toml"
        before = config.read_bytes()
        await fleet.worker()
        await fleet.start()
        result = await fleet.approve_all()
        assert result.state is FleetState.UPGRADED, (result.detail, result.refusals)
        states = {s.name: (s.state, s.version_after) for s in result.servers}
        assert states == dict.fromkeys(("web-1", "db-1", "Local"), (ServerState.UPGRADED, "2.3.2"))
        proofs = {s.name: s.proof.line if s.proof else "" for s in result.servers}
        assert proofs["db-1"].endswith("websocket as Server db-1")
        assert proofs["Local"].endswith("websocket as Server Local")
        assert "as Server" not in proofs["web-1"]
        assert config.read_bytes() == before

        request = rollback_request(result, fleet.spec)
        await fleet.client.start_workflow(
            "RollbackFleet", request, id=workflow_id(fleet.spec.name), task_queue=TASK_QUEUE, result_type=FleetResult
        )
        done = await fleet.approve_all()
        assert done.state is FleetState.ROLLED_BACK, done.detail
        assert config.read_bytes() == before
        core = fleet.sandbox.core
        assert core is not None
        assert {s.state for s in core.status.values()} == {"Ok"}
        assert fleet.sandbox.agent_version("db-1") == "2.0.0"


async def test_an_inbound_server_becomes_outbound_and_inbound_again(tmp_path: Path, temporal: Client) -> None:
    """From v1: without an onboarding key, after its switch; a rollback restores the address that Core had."""
    async with serving(tmp_path, temporal, 2) as fleet:
        sandbox = fleet.sandbox
        url = f"ws://{sandbox.hosts['core'].address}:9120"
        one = replace(fleet.spec.server("web-1"), connection=Connection.OUTBOUND)
        servers = tuple(one if server.name == one.name else server for server in fleet.spec.servers)
        fleet.spec = replace(fleet.spec, core=replace(fleet.spec.core, agents_url=url), servers=servers)

        def address() -> str:
            [document] = sandbox.store.find("komodo", "Server", {"name": "web-1"})
            return str(document["config"]["address"])

        before = address()
        await fleet.worker()
        await fleet.start()
        result = await fleet.approve_all()
        assert result.state is FleetState.UPGRADED, (result.detail, result.refusals)
        proofs = {s.name: s.proof.line if s.proof else "" for s in result.servers}
        assert proofs["web-1"].endswith("websocket as Server web-1")
        assert "as Server" not in proofs["db-1"]
        assert (before != "", address()) == (True, "")

        request = rollback_request(result, fleet.spec)
        await fleet.client.start_workflow(
            "RollbackFleet", request, id=workflow_id(fleet.spec.name), task_queue=TASK_QUEUE, result_type=FleetResult
        )
        done = await fleet.approve_all()
        assert done.state is FleetState.ROLLED_BACK, done.detail
        assert address() == before
        assert sandbox.agent_version("web-1") == "1.19.5"
