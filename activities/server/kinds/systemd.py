"""Agents under systemd: survey, backup, staging, the switch to the new version, its restore and the journal."""

from __future__ import annotations

import asyncio
import contextlib
import math
from datetime import UTC, datetime, timedelta
from functools import partial

from activities.heartbeat import attach, invalidate
from activities.server.artifacts import Digests
from activities.server.auto_rollback import refuse_if_rolled_back, time_of
from activities.server.backup import back_up, restore_command, systemd_layout
from activities.server.pins import keys_in_files
from activities.server.preflight import Machine, read_server, recheck, with_digest
from activities.server.stage import DOES_NOT_RUN, NOT_DOWNLOADED, NOT_EXPECTED, Artifacts
from activities.server.survey import AgentJournal, AgentState, agent_state, file_facts, scope_of, state_of
from hosts.exec.script import Script, parse
from hosts.host import Completed, Host
from komodo import logs
from komodo.agent.facts import server_facts
from komodo.files.edit_set import edit_config
from komodo.files.periphery_toml import inspect
from komodo.public_key import PLACEHOLDER, validate
from model.errors import (
    AgentNotStarted,
    ArtifactError,
    CommandFailed,
    ConfigNotLoaded,
    DownloadFailed,
    HostError,
    PlanChanged,
)
from model.facts import KEY_FILE, Backup, PlannedEdit, ServerFacts
from model.steps import (
    SWITCH,
    Recheck,
    RecheckServer,
    Restored,
    SavedServerStep,
    ServerStep,
    StagedAgent,
    SurveyServer,
    Switched,
    SwitchServer,
    VerifyServer,
)

STOP_LIMIT = timedelta(seconds=100)
"""`systemctl stop` may take 90 s (TimeoutStopSec), if a process does not end or systemd cannot see that it did."""
SETTLING = timedelta(seconds=2)
"""How long a new run must last before it counts: in a crash loop the unit is `active` right after each start."""


class Systemd:
    """Agents that systemd runs, as a system or a user unit. Implements AgentKind."""

    def __init__(self) -> None:
        self._digests, self._artifacts = Digests(), Artifacts()

    async def survey(self, host: Host, message: SurveyServer, machine: Machine) -> ServerFacts:
        """The unit, its binary and its config files, and the digest of the new binary. Raises HostError."""
        facts = await asyncio.to_thread(server_facts, await read_server(host, message, machine))
        return await with_digest(self._digests, host, message, facts)

    async def recheck(self, host: Host, step: RecheckServer) -> Recheck:
        """Differences from the plan. Raises HostError."""
        return await recheck(host, step)

    async def back_up(self, host: Host, step: ServerStep) -> Backup:
        """Save binary, unit and configs in the run folder, with restore.sh. Raises PlanChanged, HostError."""
        return await back_up(host, step, systemd_layout(step))

    async def stage(self, host: Host, step: ServerStep) -> StagedAgent:
        """Put the target's binary into the run folder. Raises DownloadFailed, ArtifactError, DiskFull, HostError."""
        return await self._artifacts.stage(host, step)

    async def journal(self, host: Host, verify: VerifyServer) -> AgentJournal:
        """Journal of the present run, even if systemd or a person restarted it: that run is the one to prove."""
        state = await agent_state(host, verify.server.unit, scope=scope_of(verify.facts))
        pins = state.log.config.pins if state.log.config else ()
        return AgentJournal(state.log, state.active == "active", await keys_in_files(host, pins))

    def log_command(self, verify: VerifyServer) -> str:
        """The command with which a person reads the journal."""
        user = " --user" if verify.facts.user_unit else ""
        return f"journalctl{user} -u {verify.server.unit} -n 50"

    async def switch(self, host: Host, step: SwitchServer) -> Switched:
        """Install the config, then stop, rename, start; the new run's own journal is the proof.

        Raises PlanChanged (nothing was changed), AgentNotStarted, ConfigNotLoaded (both: restore it), DiskFull,
        HostError. A repeated call attaches to the running job, or returns the result of a finished one.
        """
        undo = f"`{restore_command(host.spec, step.op.folder(host.spec.state_dir))}` restores it by hand"
        config, text = await _config_to_write(host, step)
        try:
            done = await _switch(host, step, config, text)
        except CommandFailed as error:
            raise _explained(error, host, undo) from None
        output = parse(done.text)
        now = state_of(parse(done.after.decode(errors="replace")))
        settled, state = await _settled(host, step, output["invocation"][0], output["settled"][0], now)
        if step.server.auto_rollback and state.log.version != step.target:
            await refuse_if_rolled_back(host, step)
        _prove(host, step, state, settled, undo)
        await _prove_key(host, step, state, undo)
        return Switched(
            version=state.log.version,
            invocation=state.invocation,
            started_at=datetime.fromtimestamp(int(output["started_at"][0]), UTC),
            port_downtime=timedelta(seconds=float(output["downtime"][0])),
            # Logins come later, so they are excluded: a repeated call must return the same lines.
            lines=tuple(line for line in state.log.proof if "Logged in to" not in line),
            auto_rollback_at=time_of(output.get("auto_rollback_at", [])),
        )

    async def restore(self, host: Host, step: SavedServerStep) -> Restored:
        """Run the run folder's restore.sh, the same that a person would run, and prove by the journal that it worked.

        Harmless when nothing was switched, and when it is repeated. Raises CommandFailed, HostError.
        """
        folder = step.backup.folder
        # A switch that still runs would reverse the undo, even one of an earlier attempt, whose workflow may have been
        # terminated. Wait for it, or stop it, and remove its result.
        before = (*step.op.ids(SWITCH), *step.op.ids("restore")[:-1])
        await invalidate(host, folder, *before, change=step.op.change, patience=STOP_LIMIT)
        command = restore_command(host.spec, folder)
        for again in (True, False):
            try:
                await attach(
                    host,
                    step.op.id("restore"),
                    folder,
                    Script.load("komodo.sh", "server/run_server_restore.sh", folder=folder),
                    change=step.op.change,
                    timeout=2 * STOP_LIMIT + timedelta(minutes=2),
                )
            except CommandFailed as error:
                reason = (await agent_state(host, step.facts.unit, scope=scope_of(step.facts))).log.reason
                raise CommandFailed(
                    f"the rollback failed: {error.what}" + (f"; its journal says: {reason}" if reason else ""),
                    code=error.code,
                    tail=error.tail,
                    host=host.spec.name,
                    residue=f"{folder} with everything that was saved",
                    hint=logs.hint(reason) or f"on that host: {command} --dry-run, then {command}",
                ) from None
            state = await agent_state(host, step.facts.unit, scope=scope_of(step.facts))
            if await _is_back(host, step, state):
                return _restored(step, state)
            if again:
                # Restored by this attempt before, and changed again since: a later attempt switched it.
                await invalidate(host, folder, step.op.id("restore"), change=step.op.change)
        raise CommandFailed(
            f"restore.sh succeeded, but {step.facts.unit} does not run {step.facts.version}",
            host=host.spec.name,
            residue=f"{folder} with everything that was saved",
            hint=f"on that host: {command}",
        )


async def _config_to_write(host: Host, step: SwitchServer) -> tuple[dict[str, str], bytes]:
    """Path, base digest and result digest, and the new text with the key; empty where no config changes.

    With them, where the agent reads Core's key from a file, that file and the key. The edit is computed again from the
    planned text: the file in use, or once that is edited the saved copy.
    """
    edits = [edit for edit in step.facts.edits if edit.kind != KEY_FILE]
    if not edits:
        return {}, b""
    if len(edits) > 1:
        raise PlanChanged("the plan edits more than one config of this agent", host=host.spec.name, hint="plan again")
    key = validate(step.key)
    edit = edits[0]
    key_file = next((other.path for other in step.facts.edits if other.kind == KEY_FILE), "")
    live = await host.read(edit.path)
    source = live
    if live is None or live.sha256 != edit.base_sha256:
        saved = next((f for f in step.backup.files if f.path == edit.path), None)
        source = await host.read(saved.saved_as) if saved else None
    if source is None or source.sha256 != edit.base_sha256:
        raise _changed(host, edit, "is gone" if live is None else "was changed since the plan was made")
    text = source.data.decode()
    edited = partial(
        edit_config,
        edit.path,
        text,
        by_file=bool(key_file),
        key_file=f"file:{key_file}",
    )
    # The plan knows whether a key that is there already is Core's only where Core is v2.
    variants = await asyncio.to_thread(
        lambda: [(edited(PLACEHOLDER, instead_of=old), edited(key, instead_of=old)) for old in ("", key)]
    )
    planned, new = next((v for v in variants if v[0].result_sha256 == edit.result_sha256), variants[0])
    if planned.refused or new.refused or planned.result_sha256 != edit.result_sha256:
        raise _changed(host, edit, "would be edited differently now than planned")
    # A key that is present already is not added a second time, as the placeholder had to be.
    if new.after != planned.after.replace(PLACEHOLDER, key) and key not in inspect(text).pinned:
        raise _changed(host, edit, "takes the key in another way than planned")
    result = new.result_sha256
    if live is None or live.sha256 not in {edit.base_sha256, result}:
        raise _changed(host, edit, "is gone" if live is None else "was changed since the plan was made")
    file = {"key_file": key_file, "core_key": key} if key_file else {}
    if result == edit.base_sha256:
        return file, b""
    return file | {"config": edit.path, "base": edit.base_sha256, "result": result}, new.after.encode()


def _changed(host: Host, edit: PlannedEdit, how: str) -> PlanChanged:
    return PlanChanged(
        f"{edit.path} {how}", host=host.spec.name, residue="nothing was changed", hint="plan and approve again"
    )


async def _switch(host: Host, step: SwitchServer, config: dict[str, str], text: bytes) -> Completed:
    folder = step.op.folder(host.spec.state_dir)
    params = config | {
        "mark": f"{folder}/switch-{step.op.attempt}",
        "unit": step.facts.unit,
        "scope": scope_of(step.facts),
        "binary": step.facts.binary,
        "version": step.target,
        "wait": str(max(1, round(step.timing.agent_ready.total_seconds()))),
        "auto_rollback": str(math.ceil(step.server.auto_rollback.total_seconds())),
    }
    if step.agent.method == "script":
        url = step.agent.script_url.replace("{version}", step.target)
        expected = step.facts.artifact_sha256
        script = Script.load("komodo.sh", "server/switch_by_script.sh", url=url, expected=expected, **params)
        limit = step.timing.download
    else:
        if not step.staged.path:
            raise HostError("no binary is staged", host=host.spec.name, residue="nothing was changed", hint="try again")
        params |= {"old": step.facts.binary_sha256, "staged": step.staged.path, "new": step.staged.sha256}
        script = Script.load("komodo.sh", "server/switch_agent.sh", **params)
        limit = timedelta()
    settling = f"{min(SETTLING, 2 * step.timing.poll).total_seconds():g}"
    return await attach(
        host,
        step.op.id(SWITCH),
        folder,
        script,
        data=text,
        change=step.op.change,
        timeout=limit + 2 * STOP_LIMIT + step.timing.agent_ready,
        then=Script.load(
            "komodo.sh", "server/agent_journal.sh", unit=step.facts.unit, delay=settling, scope=scope_of(step.facts)
        ),
    )


def _explained(error: CommandFailed, host: Host, undo: str) -> ArtifactError | CommandFailed:
    if error.code == NOT_DOWNLOADED:
        return DownloadFailed(
            error.what, host=host.spec.name, residue="see the message; " + undo, hint="check script_url"
        )
    if error.code in (NOT_EXPECTED, DOES_NOT_RUN):
        return ArtifactError(error.what, host=host.spec.name, residue=f"the agent is down; {undo}")
    error.residue = f"{error.residue}; {undo}" if error.residue else undo
    return error


async def _settled(
    host: Host, step: ServerStep, invocation: str, settled: str, now: AgentState
) -> tuple[str, AgentState]:
    """How the start ended, and the state shortly after it: in a crash loop the unit is `active` after each start."""
    if now.invocation == invocation:
        return settled, now
    if settled == "yes" and now.restarts == 0 and now.active == "active":
        # Nothing failed: a person, or the machine, has restarted it since this step was done.
        return settled, now
    state = await agent_state(host, step.facts.unit, invocation, scope=scope_of(step.facts))
    if settled != "yes":
        return settled, state
    return f"systemd has restarted it {state.restarts} times since", state


def _prove(host: Host, step: SwitchServer, state: AgentState, settled: str, undo: str) -> None:
    log, name = state.log, host.spec.name
    left = _left(step, state, undo)
    mine = [what for what in log.unparsed if not what.startswith("/") or what in step.facts.config_paths]
    why = log.errors[-1] if log.errors else ""
    if mine:
        raise ConfigNotLoaded(
            f"the agent runs without its config, open to any Core: {mine[0]} was skipped",
            host=name,
            residue=left,
            hint="the file is no valid TOML for Komodo, or not readable for the agent",
        )
    if settled != "yes" or state.active != "active" or log.version != step.target:
        reason = why or log.reason or f"its journal has nothing about version {step.target} ({settled})"
        raise AgentNotStarted(
            f"{step.target} does not run: {reason}",
            host=name,
            residue=left,
            hint=logs.hint(reason),
        )


async def _prove_key(host: Host, step: SwitchServer, state: AgentState, undo: str) -> None:
    pins = state.log.config.pins if state.log.config else ()
    journal = AgentJournal(state.log, runs=True, file_keys=await keys_in_files(host, pins))
    if not journal.accepts(step.key):
        shown = f"core_public_keys {', '.join(pins)}" if pins else "no core_public_keys"
        raise ConfigNotLoaded(
            f"the agent runs with {shown}, not with Core's key",
            host=host.spec.name,
            residue=_left(step, state, undo),
            hint="is there a second config, or PERIPHERY_CORE_PUBLIC_KEYS in its environment?",
        )


def _left(step: SwitchServer, state: AgentState, undo: str) -> str:
    what = f"binary and config of {step.target} are in place, {step.facts.unit} is {state.active or 'unknown'}"
    return f"{what}; {undo}"


async def _is_back(host: Host, step: SavedServerStep, state: AgentState) -> bool:
    """Raises unless the old version runs, and every saved file that may have been changed is in its place."""
    if step.facts.version and state.log.version != step.facts.version:
        return False
    seen = await file_facts(host, *(f.path for f in step.backup.files))
    return state.active == "active" and all(
        f.path in seen and seen[f.path].sha256 == f.sha256 for f in step.backup.files
    )


def _restored(step: ServerStep, state: AgentState) -> Restored:
    line = next((line for line in state.log.proof if "version:" in line), "")
    started = state.at
    with contextlib.suppress(ValueError):
        started = datetime.fromisoformat(line.split(" ", 1)[0])
    return Restored(
        version=state.log.version or step.facts.version, started_at=started, line=line, invocation=state.invocation
    )
