"""The activities as the workflows see them: by name, one input, one typed result, options with a reason."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TypeVar

from temporalio import workflow
from temporalio.workflow import ActivityConfig

with workflow.unsafe.imports_passed_through():
    from model.facts import Backup, CoreFacts, DatabasePrint, DumpFacts, ServerFacts
    from model.fleet import Clocks, FleetSpec, ServerSpec
    from model.folders import Cleaned, CleanHost, HostFolders, LookAtFolders
    from model.steps import (
        CoreKey,
        CoreStarted,
        CoreStep,
        DeadMan,
        Done,
        Notice,
        PostChecks,
        Proof,
        Recheck,
        ReleaseHosts,
        Restored,
        SaveReport,
        ServerStep,
        StagedAgent,
        StagedCore,
        SurveyCore,
        SurveyServer,
        Switched,
        VerifyServer,
    )
    from model.watch import SaveWatch, WatchLook, WatchStep
with workflow.unsafe.sandbox_import_notification_policy(workflow.SandboxImportNotificationPolicy.SILENT):
    from workflows import options

_T = TypeVar("_T")
_SUMMARY_BYTES = 190
"""Temporal keeps 200."""


async def act(name: str, arg: object, result: type[_T], config: ActivityConfig, summary: str) -> _T:
    """One activity. The summary labels it in Temporal's UI."""
    short = summary.encode()[:_SUMMARY_BYTES].decode(errors="ignore")
    options_: ActivityConfig = {**config, "summary": short}
    answer: _T = await workflow.execute_activity(name, arg, result_type=result, **options_)
    return answer


# --- reading ----------------------------------------------------------------------------------------------------------


def survey_core(fleet: FleetSpec) -> Awaitable[CoreFacts]:
    """Core, its project, its database, as found."""
    return act("survey_core", SurveyCore(fleet=fleet), CoreFacts, options.survey(fleet.clocks), "look at Core")


def survey_server(fleet: FleetSpec, server: ServerSpec) -> Awaitable[ServerFacts]:
    """One agent's machine, as found."""
    survey = SurveyServer(server=server, target=fleet.target, fleet=fleet.name, agent=fleet.agent, clocks=fleet.clocks)
    return act("survey_server", survey, ServerFacts, options.survey(fleet.clocks), f"look at {server.name}")


def recheck_core(step: CoreStep) -> Awaitable[Recheck]:
    """What changed on the Core host since the plan, and which Updates run."""
    return act("recheck_core", step, Recheck, options.look(step.fleet.clocks), "is Core still as planned?")


def recheck_server(step: ServerStep) -> Awaitable[Recheck]:
    """What changed on the server since the plan."""
    summary = f"is {step.server.name} still as planned?"
    return act("recheck_server", step, Recheck, options.look(step.clocks), summary)


def check_rollback(step: CoreStep) -> Awaitable[Recheck]:
    """What makes the way back impossible."""
    return act("check_rollback", step, Recheck, options.check(step.fleet.clocks), "is all there for the way back?")


def check_server_rollback(step: ServerStep) -> Awaitable[Recheck]:
    """The same for one server's saved files; one that cannot be reached is told apart."""
    summary = f"is all there for {step.server.name}'s way back?"
    return act("check_server_rollback", step, Recheck, options.look(step.clocks), summary)


# --- Core -------------------------------------------------------------------------------------------------------------


def back_up_core(step: CoreStep) -> Awaitable[Backup]:
    """Files, image ids, restore.sh into the run's folder."""
    return act("back_up_core", step, Backup, options.change(step.fleet.clocks), "back up Core's files")


def dump_database(step: CoreStep) -> Awaitable[DumpFacts]:
    """A dump that was counted; `step.label` says which."""
    return act("dump_database", step, DumpFacts, options.dump(step.fleet.clocks), f"dump the database: {step.label}")


def prove_dump(step: CoreStep) -> Awaitable[DumpFacts]:
    """`step.dump`, restored into a scratch database and compared."""
    label = step.dump.label if step.dump else ""
    return act("prove_dump", step, DumpFacts, options.dump(step.fleet.clocks), f"prove the dump: {label}")


def fingerprint_database(step: CoreStep) -> Awaitable[DatabasePrint]:
    """What the database holds now; `step.label` says which moment that is."""
    summary = f"fingerprint the database {step.label}"
    return act("fingerprint_database", step, DatabasePrint, options.dump(step.fleet.clocks), summary)


def stage_core(step: CoreStep) -> Awaitable[StagedCore]:
    """The new image pulled, both images held, the edited project proven."""
    return act("stage_core", step, StagedCore, options.stage(step.fleet.clocks), "pull Core's new image")


def stage_core_key(step: CoreStep) -> Awaitable[CoreKey]:
    """The public key that v2 Core will have, its pair made on Core's host while v1 runs."""
    return act("stage_core_key", step, CoreKey, options.change(step.fleet.clocks), "make Core's key pair beforehand")


def stop_core(step: CoreStep) -> Awaitable[Done]:
    """Only the core service."""
    return act("stop_core", step, Done, options.change(step.fleet.clocks), "stop Core")


def write_core_files(step: CoreStep) -> Awaitable[Done]:
    """Compose, env, keys folder."""
    return act("write_core_files", step, Done, options.change(step.fleet.clocks), "write Core's compose and env files")


def start_core(step: CoreStep) -> Awaitable[CoreStarted]:
    """Up with the new image, and the target version answered."""
    summary = f"start Core {step.fleet.target} and wait for it"
    return act("start_core", step, CoreStarted, options.start_core(step.fleet.clocks), summary)


def read_core_key(step: CoreStep) -> Awaitable[CoreKey]:
    """Core's public key, agreed on by all its sources."""
    return act("read_core_key", step, CoreKey, options.start_core(step.fleet.clocks), "read Core's public key")


def switch_core_agent(step: CoreStep) -> Awaitable[Switched]:
    """The periphery service of Core's own project."""
    summary = "switch the agent in Core's project"
    return act("switch_core_agent", step, Switched, options.switch(step.fleet.clocks), summary)


def post_checks(step: CoreStep) -> Awaitable[PostChecks]:
    """The guide's checklist from Core's side."""
    return act("post_checks", step, PostChecks, options.check(step.fleet.clocks), "post-upgrade checks")


# --- Core, the way back -----------------------------------------------------------------------------------------------


def restore_database(step: CoreStep) -> Awaitable[Done]:
    """Drop, restore `step.dump`, count."""
    return act("restore_database", step, Done, options.dump(step.fleet.clocks), "restore the database")


def downgrade_database(step: CoreStep) -> Awaitable[Done]:
    """v1's form again, what was written since kept."""
    return act("downgrade_database", step, Done, options.dump(step.fleet.clocks), "take the database to v1's form")


def restore_core_files(step: CoreStep, rounds: int = 0) -> Awaitable[Done]:
    """Compose and env files as they were."""
    return act("restore_core_files", step, Done, options.undo(step.fleet.clocks, rounds), "put Core's files back")


def start_old_core(step: CoreStep, rounds: int | None = None) -> Awaitable[CoreStarted]:
    """Core of the files now in place. `rounds` is given where this is an undo, which does not give up."""
    clocks = step.fleet.clocks
    config = options.start_core(clocks) if rounds is None else options.undo(clocks, rounds)
    return act("start_old_core", step, CoreStarted, config, "start the old Core")


def return_to_new_core(step: CoreStep, rounds: int = 0) -> Awaitable[CoreStarted]:
    """A way back that failed: the new Core again."""
    config = options.undo_with_dump(step.fleet.clocks, rounds)
    return act("return_to_new_core", step, CoreStarted, config, "start the new Core again")


def restore_core_agent(step: CoreStep, rounds: int = 0) -> Awaitable[Restored]:
    """The periphery service of Core's own project."""
    config = options.undo(step.fleet.clocks, rounds)
    return act("restore_core_agent", step, Restored, config, "put the agent in Core's project back")


# --- servers ----------------------------------------------------------------------------------------------------------


def back_up_server(step: ServerStep) -> Awaitable[Backup]:
    """Binary, unit, config, restore.sh into the run's folder."""
    return act("back_up_server", step, Backup, options.change(step.clocks), f"back up {step.server.name}")


def stage_server(step: ServerStep) -> Awaitable[StagedAgent]:
    """The new binary on its host, proven to run there."""
    return act("stage_server", step, StagedAgent, options.stage(step.clocks), f"stage the agent for {step.server.name}")


def switch_server(step: ServerStep) -> Awaitable[Switched]:
    """Config in place, stop, rename, start."""
    return act("switch_server", step, Switched, options.switch(step.clocks), f"switch {step.server.name}")


def verify_server(check: VerifyServer) -> Awaitable[Proof]:
    """Fresh proof that Core talks to the agent."""
    summary = f"does Core see {check.server.name}?"
    config = options.verify(check.fleet.clocks, check.core.monitoring_interval)
    return act("verify_server", check, Proof, config, summary)


def look_at_dead_man(step: ServerStep) -> Awaitable[DeadMan]:
    """What the host's dead-man timer is, or what became of it."""
    summary = f"did {step.server.name} put itself back?"
    return act("look_at_dead_man", step, DeadMan, options.look(step.clocks), summary)


def disarm_dead_man(step: ServerStep) -> Awaitable[DeadMan]:
    """Core has confirmed the server."""
    summary = f"disarm the dead-man timer of {step.server.name}"
    return act("disarm_dead_man", step, DeadMan, options.change(step.clocks), summary)


def restore_server(step: ServerStep, rounds: int = 0) -> Awaitable[Restored]:
    """The host's own restore.sh."""
    return act("restore_server", step, Restored, options.undo(step.clocks, rounds), f"put {step.server.name} back")


# --- the end ----------------------------------------------------------------------------------------------------------


def release_host(release: ReleaseHosts, clocks: Clocks) -> Awaitable[Done]:
    """The lock given back, leftovers removed."""
    return act("release_host", release, Done, options.change(clocks), f"release {release.op.target}")


def save_report(report: SaveReport, clocks: Clocks) -> Awaitable[Done]:
    """report.md and report.json into Core's run folder."""
    return act("save_report", report, Done, options.change(clocks), "save the report")


def watch_fleet(step: WatchStep) -> Awaitable[WatchLook]:
    """One look, hours after the upgrade."""
    return act("watch_fleet", step, WatchLook, options.check(step.fleet.clocks), "look at the upgraded fleet")


def save_watch(save: SaveWatch) -> Awaitable[Done]:
    """The watch's section of the report."""
    return act("save_watch", save, Done, options.look(save.fleet.clocks), "save what the watch has found")


def notify(notice: Notice, clocks: Clocks) -> Awaitable[Done]:
    """A message to people."""
    return act("notify", notice, Done, options.notice(clocks), notice.subject)


# --- the run folders --------------------------------------------------------------------------------------------------


def look_at_folders(ask: LookAtFolders, clocks: Clocks) -> Awaitable[HostFolders]:
    """What the run folders on one host can undo."""
    summary = f"what lies in the run folders of {ask.server.name if ask.server else 'Core'}?"
    return act("look_at_folders", ask, HostFolders, options.check(clocks), summary)


def clean_host(ask: CleanHost, clocks: Clocks) -> Awaitable[Cleaned]:
    """Run folders removed on one host."""
    return act("clean_host", ask, Cleaned, options.check(clocks), f"remove run folders of {ask.unwanted.name}")
