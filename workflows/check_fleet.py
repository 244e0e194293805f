"""CheckFleet: survey the whole fleet and make the plan. Changes nothing."""

from __future__ import annotations

from temporalio import workflow

from model.gates import QUERY_PLAN_PAGE
from model.pages.results import plan_page, shortened_plan
from model.plan import Plan
from model.planning import make_plan
from model.status import CheckResult, PlanPage, UpgradeRequest
from workflows.phases.survey_and_plan import survey

_FUTURE_CHANGE = "<UTC>"
"""Placeholder for the name of the run folder in the rollback commands, because only `start` creates one."""


@workflow.defn(name="CheckFleet")
class CheckFleet:
    """Behind `check` and `plan`. Surveys run on the worker, where keys and secrets are."""

    def __init__(self) -> None:
        self._plan: Plan | None = None

    @workflow.run
    async def run(self, request: UpgradeRequest) -> CheckResult:
        """Survey all hosts in parallel, then plan."""
        core, servers = await survey(request.fleet, request.fleet.in_run)
        self._plan = make_plan(request.fleet, _FUTURE_CHANGE, core, servers)
        return CheckResult(plan=shortened_plan(self._plan), found_at=workflow.now())

    @workflow.query(name=QUERY_PLAN_PAGE, description="Part of the plan, by its number.")
    def plan_page(self, number: int) -> PlanPage:
        """A page of servers with all details."""
        return plan_page(self._plan, number)
