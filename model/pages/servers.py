"""Input and result of `ServerPage`, which runs one step on the servers of a page. Its history is not the fleet's."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

from model.facts import Backup, ServerFacts
from model.fleet.spec import FleetSpec
from model.plan import Plan
from model.planning import server_without_diffs
from model.run_folders import HostFolders
from model.status import ServerOutcome
from model.steps import CoreKey, Operation, Proof, Recheck, Restored, StagedAgent


class PageStep(StrEnum):
    """A step that `ServerPage` runs on each of its servers."""

    SURVEY = "survey"
    SCAN = "scan"
    BACK_UP = "back-up"
    STAGE = "stage"
    RECHECK = "recheck"
    UPGRADE = "upgrade"
    PROVE = "prove"
    CHECK_ROLLBACK = "check-rollback"
    RESTORE = "restore"
    RELEASE = "release"


@dataclass(frozen=True, slots=True, kw_only=True)
class PageServer:
    """What a step needs to know about one server of a page, in addition to the page's fleet and plan."""

    op: Operation
    """Names the server. Its change names the run folder; empty in a scan: all folders."""
    backup: Backup | None = None
    staged: StagedAgent | None = None
    outcome: ServerOutcome | None = None
    """Of a server that is to be proven."""

    @property
    def name(self) -> str:
        """The server's name."""
        return self.op.target


@dataclass(frozen=True, slots=True, kw_only=True)
class PageRequest:
    """Input of `ServerPage`: one step, and the part of the fleet and of the plan that its servers need."""

    step: PageStep
    fleet: FleetSpec
    servers: tuple[PageServer, ...]
    plan: Plan | None = None
    key: CoreKey | None = None
    prove: bool = True
    """Core is asked about each server at the end of the step; for `UPGRADE` and `RESTORE`."""
    again: bool = False
    """See UpgradeServerRequest."""
    core_is_rolled_back: bool = False
    """Core's database goes back to v1, and the Servers' addresses with it: a restore asks nothing of Core."""
    brief: bool = False
    """See ScanRequest."""
    run_workflow: str = ""
    """Id of the fleet's workflow, which the ids of its servers' workflows begin with."""

    @property
    def planned(self) -> Plan:
        """The plan of a step that needs one."""
        if self.plan is None:
            raise ValueError(f"the step {self.step} was called without a plan")
        return self.plan


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Why a step failed."""

    type: str
    """A FailureKind of `workflows/runtime/failures.py`, or the name of another error class."""
    text: str
    text_without_residue: str = ""
    """The text without the residue of the error; empty if there is no residue."""

    @property
    def text_after_undo(self) -> str:
        """Why it failed, for a person who reads it after the step was undone."""
        return self.text_without_residue or self.text


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerResult:
    """Result of a page's step on one server: what this step returns, or why it failed."""

    name: str
    failure: Failure | None = None
    facts: ServerFacts | None = None
    folders: HostFolders | None = None
    backup: Backup | None = None
    staged: StagedAgent | None = None
    recheck: Recheck | None = None
    outcome: ServerOutcome | None = None
    proof: Proof | None = None
    restored: Restored | None = None
    note: str = ""
    """What a person should know of a step that worked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PageResult:
    """Result of `ServerPage`."""

    servers: tuple[ServerResult, ...]


def page_of(request: PageRequest, servers: tuple[PageServer, ...]) -> PageRequest:
    """The request for these servers alone, with the parts of the fleet and the plan that its step needs."""
    step, plan = request.step, request.plan
    names = {server.name: server for server in servers}
    if step in (PageStep.SURVEY, PageStep.SCAN, PageStep.RELEASE):
        plan = None
    if plan is not None:
        known = tuple(s for s in plan.core.servers if s.name in names)
        plan = replace(
            plan,
            core=replace(plan.core, servers=known, edits=(), findings=(), sources=()),
            servers=tuple(server_without_diffs(s) for s in plan.servers if s.name in names),
            waves=(),
            commands=(),
            rollback_steps=(),
        )
    restores = step in (PageStep.UPGRADE, PageStep.PROVE, PageStep.CHECK_ROLLBACK, PageStep.RESTORE)
    uses_staged = step in (PageStep.RECHECK, PageStep.UPGRADE)
    return replace(
        request,
        fleet=replace(request.fleet, servers=tuple(s for s in request.fleet.servers if s.name in names)),
        plan=plan,
        servers=tuple(
            replace(
                server,
                backup=server.backup if restores else None,
                staged=server.staged if uses_staged else None,
                outcome=server.outcome if step is PageStep.PROVE else None,
            )
            for server in servers
        ),
    )
