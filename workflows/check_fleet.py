"""CheckFleet: look at the whole fleet and make the plan, without changing anything anywhere."""

from __future__ import annotations

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from model.progress import CheckResult, UpgradeRequest
with workflow.unsafe.sandbox_import_notification_policy(workflow.SandboxImportNotificationPolicy.SILENT):
    from workflows.preflight import assemble, survey

_CHANGE_TO_COME = "<UTC>"
"""In the folders of the way back: `start` makes them, a look does not."""


@workflow.defn(name="CheckFleet")
class CheckFleet:
    """Behind `check` and `plan`. Its surveys run on the worker, where keys and secrets are."""

    @workflow.run
    async def run(self, request: UpgradeRequest) -> CheckResult:
        """All surveys in parallel, then pure code."""
        core, servers = await survey(request.fleet, [s.name for s in request.fleet.servers])
        plan = assemble(request.fleet, _CHANGE_TO_COME, core, servers)
        return CheckResult(plan=plan, found_at=workflow.now())
