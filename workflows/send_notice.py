"""SendNotice: one notice, so that a person can try whether notices arrive. Changes nothing."""

from __future__ import annotations

from temporalio import workflow

from activities import contracts
from model.steps import Done, Notice
from workflows.runtime.steps import run_step


@workflow.defn(name="SendNotice")
class SendNotice:
    """Behind `notify --test`. The worker sends, because it has the addresses and runs the commands."""

    @workflow.run
    async def run(self, notice: Notice) -> Done:
        """Returns why the notice did not arrive; nothing: it did."""
        return await run_step(contracts.NOTIFY, notice)
