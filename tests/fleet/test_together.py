"""`mode = "together"` on a whole simulated fleet: one gate, Core and all agents at once, and back as a whole."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from model.decisions import Verdict
from model.progress import FleetState
from tests.fleet.conftest import Fleet
from tests.fleet.test_upgrade import (
    every_mutating_step_ran_once_on_its_host,
    everything_is_upgraded,
    no_secret_is_in_history_log_report_or_process_list,
)
from tests.fleet.test_way_back import files


def together(fleet: Fleet) -> None:
    """As the fleet file says it."""
    rollout = replace(fleet.spec.rollout, mode="together", canary=0, wave="100%", approve="core-only")
    fleet.spec = replace(fleet.spec, rollout=rollout)


@pytest.mark.parametrize("fleet", [4], indirect=True)
async def test_core_and_all_agents_are_switched_at_once(fleet: Fleet) -> None:
    together(fleet)
    worker = await fleet.worker()
    await fleet.start()
    gate = await fleet.gate("core")
    made = len(fleet.sandbox.world.minted)
    assert made == 1, "the pair is there before anybody is asked"
    await fleet.decide(gate)
    result = await fleet.handle.result()
    everything_is_upgraded(fleet, result)
    every_mutating_step_ran_once_on_its_host(fleet)
    assert len(fleet.sandbox.world.minted) == made
    await no_secret_is_in_history_log_report_or_process_list(fleet, worker, result)
    assert [r.decision.gate for r in result.decisions] == ["core"]
    assert result.key is not None
    assert result.key.public_key in "\n".join(gate.facts)
    starts = [o.switched.started_at for o in result.servers if o.switched]
    assert len(starts) == 4
    assert max(starts) - min(starts) < timedelta(seconds=60)


async def test_a_core_with_another_key_is_undone_as_a_whole(fleet: Fleet) -> None:
    """Somebody exchanges core.key in the last moment: v2 runs, the agents run, and none of them lets Core in."""
    before = files(fleet)
    together(fleet)
    fleet.sandbox.fault("wrong-key", "core")
    await fleet.worker()
    await fleet.start()
    gate = await fleet.gate("core")
    await fleet.decide(gate)
    failed = await fleet.gate("failure/core")
    said = "\n".join(failed.facts)
    assert "which was made for it beforehand" in said
    assert "3 agents run 2.3.2" in said
    assert fleet.sandbox.core is not None
    assert fleet.sandbox.core.public_key in said
    assert fleet.sandbox.core.public_key not in "\n".join(gate.facts)
    assert {fleet.sandbox.agent_version(s.name) for s in fleet.spec.servers} == {"2.3.2"}
    await fleet.decide(failed, Verdict.ROLLBACK)
    result = await fleet.handle.result()
    assert result.state is FleetState.ROLLED_BACK, result.detail
    assert files(fleet) == before
    assert {fleet.sandbox.agent_version(s.name) for s in fleet.spec.servers} == {"1.19.5"}
    assert fleet.sandbox.core is not None
    assert fleet.sandbox.core.version == "1.19.5"
