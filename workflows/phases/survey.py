"""The survey of one server. A survey that fails becomes a finding that refuses."""

from __future__ import annotations

from temporalio import workflow
from temporalio.exceptions import FailureError, is_cancelled_exception

from activities import contracts
from model.facts import Finding, ServerFacts, Severity
from model.fleet.spec import FleetSpec
from model.planning import is_unreachable
from model.steps import SurveyServer
from workflows.runtime.failures import describe_failure
from workflows.runtime.steps import run_step


async def survey_server(fleet: FleetSpec, name: str, known: ServerFacts | None = None) -> ServerFacts:
    """Survey one server; `known`: the facts that are known of it.

    If it is unreachable, repeat the survey twice before reporting that.
    """
    facts = await survey_once(fleet, name, known)
    for pause in (fleet.timing.retry, 2 * fleet.timing.retry):
        if not is_unreachable(facts):
            break
        await workflow.sleep(pause, summary=f"survey {name} again")
        facts = await survey_once(fleet, name, known)
    return facts


async def survey_once(fleet: FleetSpec, name: str, known: ServerFacts | None = None) -> ServerFacts:
    """Survey one server without repeating."""
    survey = SurveyServer(
        server=fleet.server(name),
        target=fleet.target,
        fleet=fleet.name,
        agent=fleet.agent,
        timing=fleet.timing,
        agents_url=fleet.core.agents_url,
        known=known if known and known.in_core_project else None,
    )
    try:
        return await run_step(contracts.SURVEY_SERVER, survey)
    except FailureError as error:
        return ServerFacts(name=name, findings=(survey_failed(name, error),))


def survey_failed(subject: str, error: FailureError) -> Finding:
    """The finding for a survey that failed. Raises the error again if it was cancelled."""
    if is_cancelled_exception(error):
        raise error
    return Finding(code="survey-failed", severity=Severity.REFUSE, subject=subject, text=describe_failure(error).text)
