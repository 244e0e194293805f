"""`mode = "all-at-once"` on a simulated fleet: one gate, Core and all agents at once, one rollback."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from model.fleet.spec import Approval, RolloutMode
from model.gates import Verdict
from model.status import FleetState
from tests.fleet.conftest import Fleet
from tests.fleet.test_rollback import files
from tests.fleet.test_upgrade import (
    every_mutating_step_ran_once_on_its_host,
    everything_is_upgraded,
    no_secret_is_in_history_log_report_or_process_list,
)


def all_at_once(fleet: Fleet) -> None:
    """The rollout settings of the fleet file."""
    rollout = replace(
        fleet.spec.rollout, mode=RolloutMode.ALL_AT_ONCE, canary=0, wave="100%", approve=Approval.CORE_ONLY
    )
    fleet.spec = replace(fleet.spec, rollout=rollout)


@pytest.mark.parametrize("fleet", [4], indirect=True)
async def test_core_and_all_agents_are_switched_at_once(fleet: Fleet) -> None:
    all_at_once(fleet)
    worker = await fleet.worker()
    await fleet.start()
    gate = await fleet.gate("core")
    made = len(fleet.sandbox.world.minted)
    assert made == 1, "the key pair exists before the gate"
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
    assert len(starts) == 5, "four servers and the agent in Core's project"
    assert max(starts) - min(starts) < timedelta(seconds=60)


async def test_a_core_with_another_key_is_undone_as_a_whole(fleet: Fleet) -> None:
    """core.key is exchanged just before the switch: v2 and the agents run, and no agent accepts Core."""
    before = files(fleet)
    all_at_once(fleet)
    fleet.sandbox.fault("wrong-key", "core")
    await fleet.worker()
    await fleet.start()
    gate = await fleet.gate("core")
    await fleet.decide(gate)
    failed = await fleet.gate("failure/core")
    facts = "\n".join(failed.facts)
    assert "which was created for it in advance" in facts
    assert "4 agents run 2.3.2" in facts
    assert fleet.sandbox.core is not None
    assert fleet.sandbox.core.public_key in facts
    assert fleet.sandbox.core.public_key not in "\n".join(gate.facts)
    assert {fleet.sandbox.agent_version(s.name) for s in fleet.spec.servers} == {"2.3.2"}
    await fleet.decide(failed, Verdict.ROLLBACK)
    result = await fleet.handle.result()
    assert result.state is FleetState.ROLLED_BACK, result.detail
    assert files(fleet) == before
    assert {fleet.sandbox.agent_version(s.name) for s in fleet.spec.servers} == {"1.19.5"}
    assert fleet.sandbox.core is not None
    assert fleet.sandbox.core.version == "1.19.5"
