"""The sandbox of the workflows: which modules it imports again for each run, and which it shares with the worker.

A workflow's own file is imported for each run under the sandbox's restrictions, as Temporal does. All other modules of
the project that a workflow uses are pure or call Temporal only, so they are passed through: importing them for each run
would cost 30 ms and 440 KiB for each server. `tests/workflows/test_rules.py` checks their imports and calls.
Any other import raises, in the worker as in the tests.
"""

from __future__ import annotations

from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner, SandboxRestrictions
from temporalio.workflow import SandboxImportNotificationPolicy

PASSED_THROUGH = ("activities", "model", "workflows.phases", "workflows.runtime")


def sandboxed_runner(*more: str) -> SandboxedWorkflowRunner:
    """The runner of workers, tests and replays. `more`: further modules to pass through."""
    policy = (
        SandboxImportNotificationPolicy.WARN_ON_DYNAMIC_IMPORT
        | SandboxImportNotificationPolicy.RAISE_ON_UNINTENTIONAL_PASSTHROUGH
    )
    restrictions = SandboxRestrictions.default.with_passthrough_modules(*PASSED_THROUGH, *more)
    return SandboxedWorkflowRunner(restrictions=restrictions.with_import_notification_policy(policy))
