"""However people decide, whatever breaks and whenever the worker forgets everything: what must hold, holds.

A fixed choice of runs in `make test`; `make invariants` does many more, different ones each time.
"""

from __future__ import annotations

import itertools
import os

from hypothesis import HealthCheck, example, given, settings
from temporalio.testing import WorkflowEnvironment

from tests.workflows.driver import Driver
from tests.workflows.invariants import Fault, RandomRun, random_runs, spend
from tests.workflows.world import World

RUNS = int(os.environ.get("KU_RUNS", "0"))
UNDO_OF_CORE = Fault("restore_core_files", "core", "CommandFailed", 3)
UNDO_OF_WEB_1 = Fault("restore_server", "web-1", "CommandFailed", 6)
RETURN = Fault("return_to_new_core", "core", "DatabaseError", 5)
_numbers = itertools.count(1)


@settings(
    max_examples=RUNS or 2,
    derandomize=not RUNS,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    print_blob=True,
)
@given(random_runs())
@example(RandomRun(agent=True, back=True))
@example(RandomRun(servers=1, faults=(Fault("write_core_files", "core", "DiskFull", 1), UNDO_OF_CORE)))
@example(
    RandomRun(faults=(Fault("dump_database", "core", "DumpRejected", 1, after=1),), answers=("first", "duplicate"))
)
@example(
    RandomRun(faults=(Fault("switch_server", "web-1", "AgentNotStarted", 1), UNDO_OF_WEB_1), answers=("another plan",))
)
@example(RandomRun(servers=3, answers=("unknown gate", "first", "nobody", "rollback", "not taken", "first")))
@example(RandomRun(faults=(Fault("start_core", "core", "CommandFailed", 1),), answers=("first", "second")))
@example(RandomRun(servers=1, faults=(Fault("prove_dump", "core", "CommandFailed", 2, after=1),), back=True))
@example(RandomRun(meanwhile=((13, "cancel"),), forgetful=True))
@example(
    RandomRun(faults=(Fault("restore_database", "core", "CommandFailed", 1), RETURN), answers=("first", "rollback"))
)
async def test_a_random_run(real: WorkflowEnvironment, case: RandomRun) -> None:
    world = World(*(f"web-{n}" for n in range(1, case.servers + 1)))
    async with Driver.plain(real, world, forgetful=case.forgetful) as run:
        await spend(run, world, case, f"case-{next(_numbers)}")
