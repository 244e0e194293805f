"""Steps on servers, one function per step. A large fleet runs them in pages, each a child workflow `ServerPage`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import timedelta

from temporalio import workflow
from temporalio.exceptions import FailureError, is_cancelled_exception
from temporalio.workflow import ParentClosePolicy

from activities import contracts
from model.facts import Finding, ServerFacts, Severity
from model.fleet.spec import FleetSpec, slug
from model.pages.servers import Failure, PageRequest, PageResult, PageServer, PageStep, ServerResult, page_of
from model.planning import (
    core_access,
    core_for_server,
    fleet_for_server,
    is_unreachable,
    plan_for_server,
    server_step,
)
from model.run_folders import ScanHost
from model.status import ServerOutcome, UpgradeServerRequest
from model.steps import (
    Proof,
    RecheckServer,
    ReleaseHosts,
    Restored,
    SavedServerStep,
    SurveyServer,
    Switched,
    VerifyServer,
)
from workflows.runtime import auto_rollback
from workflows.runtime.failures import describe_failure, each
from workflows.runtime.run import child_id
from workflows.runtime.steps import run_step, run_undo

PAGES_AT_ONCE = 2
"""The next page begins while the slowest servers of the last one still work."""


async def run_on_servers(
    request: PageRequest, keep: Callable[[ServerResult], None], begin: Callable[[str], None] = lambda _: None
) -> dict[str, Failure]:
    """Run a step on all servers of the request. Returns why it failed, in their order.

    `begin` is called with each name when its work begins, `keep` with each result: one by one, or of a large fleet a
    page at a time. A single server needs no page.
    """
    servers = {server.name: server for server in request.servers}
    failed: dict[str, Failure] = {}

    def take(result: ServerResult) -> None:
        if result.failure is not None and result.restored is None:
            failed[result.name] = result.failure
        else:
            keep(result)

    async def one(name: str) -> None:
        begin(name)
        take(await _STEPS[request.step](request, servers[name]))

    if request.fleet.is_paged and len(servers) > 1:
        await _in_pages(request, take, begin)
    else:
        failed |= {name: describe_failure(error) for name, error in (await each(servers, one)).items()}
    return {name: failed[name] for name in servers if name in failed}


async def _in_pages(request: PageRequest, take: Callable[[ServerResult], None], begin: Callable[[str], None]) -> None:
    size = request.fleet.page
    pages = {
        str(start // size + 1): request.servers[start : start + size] for start in range(0, len(request.servers), size)
    }

    async def page(number: str) -> None:
        for server in pages[number]:
            begin(server.name)
        try:
            result = await _run_page(request, pages[number])
        except FailureError as error:
            if is_cancelled_exception(error) and request.step is not PageStep.UPGRADE:
                raise
            why = describe_failure(error)
            result = PageResult(servers=tuple(ServerResult(name=s.name, failure=why) for s in pages[number]))
        for found in result.servers:
            take(found)

    await each(pages, page, window=PAGES_AT_ONCE)


async def _run_page(request: PageRequest, servers: tuple[PageServer, ...]) -> PageResult:
    # An underscore is in no server's name in an id, so the ids of pages differ from those of servers. The last part
    # tells the pages of a repeated step apart; the history's length would not do: in a replay it can be another one.
    name = f"{workflow.info().workflow_id}/page_{request.step}/{slug(servers[0].name)}/{workflow.uuid4().hex[:8]}"
    result: PageResult = await workflow.execute_child_workflow(
        "ServerPage",
        page_of(request, servers),
        id=name,
        result_type=PageResult,
        parent_close_policy=ParentClosePolicy.REQUEST_CANCEL,
        static_summary=f"{request.step} {servers[0].name} … {servers[-1].name}",
    )
    return result


# --- survey -----------------------------------------------------------------------------------------------------------


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


# --- before the switch ------------------------------------------------------------------------------------------------


async def _survey(page: PageRequest, server: PageServer) -> ServerResult:
    return ServerResult(name=server.name, facts=await survey_server(page.fleet, server.name))


async def _scan(page: PageRequest, server: PageServer) -> ServerResult:
    ask = ScanHost(
        fleet=page.fleet.name,
        timing=page.fleet.timing,
        server=page.fleet.server(server.name),
        brief=page.brief,
        change=server.op.change,
    )
    folders = await run_step(contracts.SCAN_RUN_FOLDERS, ask)
    return ServerResult(name=server.name, folders=folders)


async def _back_up(page: PageRequest, server: PageServer) -> ServerResult:
    backup = await run_step(contracts.BACK_UP_SERVER, server_step(page.fleet, page.planned, server.op))
    return ServerResult(name=server.name, backup=backup)


async def _stage(page: PageRequest, server: PageServer) -> ServerResult:
    staged = await run_step(contracts.STAGE_SERVER, server_step(page.fleet, page.planned, server.op))
    return ServerResult(name=server.name, staged=staged)


async def _recheck(page: PageRequest, server: PageServer) -> ServerResult:
    message = RecheckServer(**server_step(page.fleet, page.planned, server.op).basis(), staged=server.staged)
    recheck = await run_step(contracts.RECHECK_SERVER, message)
    return ServerResult(name=server.name, recheck=recheck)


# --- the switch -------------------------------------------------------------------------------------------------------


async def _upgrade(page: PageRequest, server: PageServer) -> ServerResult:
    """One attempt, as a child workflow. It fails only if that ends without an outcome: cancelled or terminated."""
    name = server.name
    if page.key is None or server.backup is None:
        raise RuntimeError(f"{name} was to be upgraded without Core's public key or without a backup")
    request = UpgradeServerRequest(
        op=server.op,
        fleet=fleet_for_server(page.fleet, name),
        plan=plan_for_server(page.planned, name),
        server=name,
        key=page.key,
        backup=server.backup,
        staged=server.staged,
        again=page.again,
        prove=page.prove,
    )
    try:
        # REQUEST_CANCEL: the only policy under which a child undoes its work when this workflow is terminated.
        outcome = await workflow.execute_child_workflow(
            "UpgradeServer",
            request,
            id=child_id(page.run_workflow, server.op),
            result_type=ServerOutcome,
            parent_close_policy=ParentClosePolicy.REQUEST_CANCEL,
            static_summary=f"{name} to {page.fleet.target}, attempt {server.op.attempt}",
        )
    except FailureError as error:
        return ServerResult(name=name, failure=describe_failure(error))
    return ServerResult(name=name, outcome=outcome)


async def _prove(page: PageRequest, server: PageServer) -> ServerResult:
    """Ask Core about a server that was switched while Core was started."""
    outcome = server.outcome
    if outcome is None or outcome.switched is None:
        raise RuntimeError(f"{server.name} was to be proven before it was switched")
    proof = await _verify(page, server, outcome.switched, expected=page.fleet.target, key=outcome.pinned_key)
    return ServerResult(name=server.name, proof=proof, note=await auto_rollback.disarm(_saved_step(page, server)))


async def _verify(page: PageRequest, server: PageServer, switched: Switched, *, expected: str, key: str) -> Proof:
    step = server_step(page.fleet, page.planned, server.op)
    check = VerifyServer(
        op=step.op,
        fleet=fleet_for_server(page.fleet, server.name),
        core=core_for_server(page.planned.core, server.name),
        server=step.server,
        facts=step.facts,
        switched=switched,
        expected_version=expected,
        key=key,
    )
    return await run_step(contracts.VERIFY_SERVER, check)


# --- rollback ---------------------------------------------------------------------------------------------------------


async def _check_rollback(page: PageRequest, server: PageServer) -> ServerResult:
    recheck = await run_step(contracts.CHECK_SERVER_ROLLBACK, _saved_step(page, server))
    return ServerResult(name=server.name, recheck=recheck)


async def _restore(page: PageRequest, server: PageServer) -> ServerResult:
    """One round of the restore, without a gate: where it fails, the fleet's workflow continues it."""
    restored = await run_undo(contracts.RESTORE_SERVER, _saved_step(page, server), 0)
    return await verify_restored(page, server, restored)


async def verify_restored(page: PageRequest, server: PageServer, restored: Restored) -> ServerResult:
    """Whether Core sees a restored agent; not asked if `prove` is not set."""
    if not page.prove:
        return ServerResult(name=server.name, restored=restored)
    switched = Switched(
        version=restored.version,
        invocation=restored.invocation,
        started_at=restored.started_at,
        port_downtime=timedelta(),
        lines=(restored.line,),
    )
    expected = page.planned.server(server.name).version or restored.version
    try:
        proof = await _verify(page, server, switched, expected=expected, key="")
    except FailureError as error:
        return ServerResult(name=server.name, restored=restored, failure=describe_failure(error))
    return ServerResult(name=server.name, restored=restored, proof=proof)


async def _release(page: PageRequest, server: PageServer) -> ServerResult:
    release = ReleaseHosts(op=server.op, timing=page.fleet.timing, server=page.fleet.server(server.name))
    await run_step(contracts.RELEASE_HOST, release)
    return ServerResult(name=server.name)


def _saved_step(page: PageRequest, server: PageServer) -> SavedServerStep:
    if server.backup is None:
        raise RuntimeError(f"{server.name} has no backup")
    step = server_step(page.fleet, page.planned, server.op)
    back = page.core_is_rolled_back
    core = None if back else core_access(page.fleet.core, page.planned.core, step.facts)
    return SavedServerStep(**step.basis(), backup=server.backup, core=core)


_STEPS: dict[PageStep, Callable[[PageRequest, PageServer], Awaitable[ServerResult]]] = {
    PageStep.SURVEY: _survey,
    PageStep.SCAN: _scan,
    PageStep.BACK_UP: _back_up,
    PageStep.STAGE: _stage,
    PageStep.RECHECK: _recheck,
    PageStep.UPGRADE: _upgrade,
    PageStep.PROVE: _prove,
    PageStep.CHECK_ROLLBACK: _check_rollback,
    PageStep.RESTORE: _restore,
    PageStep.RELEASE: _release,
}
