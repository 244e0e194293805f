"""The switch of a server's agent to its new version, the way back, and letting go of a host."""

from __future__ import annotations

import contextlib
import hashlib
import math
from datetime import UTC, datetime, timedelta

from temporalio import activity

from activities.agent_host import AgentState, agent_state, file_facts, state_of
from activities.artifacts import DOES_NOT_RUN, NOT_DOWNLOADED
from activities.dead_man import refuse_if_put_back
from activities.server_backup import read_backup, restore_command
from activities.signs import attach, void
from hosts.host import Completed, Host
from hosts.pool import Hosts
from hosts.script import Script, parse, together
from komodo import logs
from komodo.agent_facts import planned_edit
from komodo.periphery_config import edit_periphery_config, inspect
from komodo.public_key import PLACEHOLDER, understood, validate
from model.errors import (
    AgentNotStarted,
    ArtifactError,
    CommandFailed,
    ConfigNotLoaded,
    DownloadFailed,
    HostError,
    PlanChanged,
)
from model.facts import PlannedEdit
from model.fleet import HostSpec
from model.steps import Done, ReleaseHosts, Restored, ServerStep, Switched

STOP_LIMIT = timedelta(seconds=100)
"""`systemctl stop` may take 90 s (TimeoutStopSec), where a process does not end or systemd cannot see that it did."""
SETTLING = timedelta(seconds=2)
"""How long a new run must hold before it counts: a crash loop says `active` right after each start."""
_LAST_JOBS = "30"
"""Seconds that a host's release waits for: what a job was for is found by a retry before the job itself has ended."""


class Periphery:
    """One server's agent."""

    def __init__(self, hosts: Hosts) -> None:
        self._hosts = hosts

    @activity.defn
    async def switch_server(self, step: ServerStep) -> Switched:
        """Config in place, then stop, rename, start; and the new run's own journal as the proof.

        Raises PlanChanged (nothing was changed), AgentNotStarted, ConfigNotLoaded (both: put it back), DiskFull,
        HostError. A repeated call attaches to the running job, or finds what is done.
        """
        host = await self._hosts.get(step.server.host)
        undo = f"`{restore_command(host.spec, step.op.folder(host.spec.state_dir))}` puts it back by hand"
        config, text = await _config_to_write(host, step)
        try:
            done = await _switch(host, step, config, text)
        except CommandFailed as error:
            raise _explained(error, host, undo) from None
        said = parse(done.text)
        now = state_of(parse(done.after.decode(errors="replace")))
        settled, state = await _settled(host, step, said["invocation"][0], said["settled"][0], now)
        if step.server.dead_man and state.log.version != step.target:
            await refuse_if_put_back(host, step)
        _prove(host, step, state, settled, undo)
        return Switched(
            version=state.log.version,
            invocation=state.invocation,
            started_at=datetime.fromtimestamp(int(said["started_at"][0]), UTC),
            port_silent=timedelta(seconds=float(said["silent"][0])),
            # Logins come later: a repeated call returns the same lines.
            lines=tuple(line for line in state.log.proof if "Logged in to" not in line),
            puts_itself_back_at=_over(said),
        )

    @activity.defn
    async def restore_server(self, step: ServerStep) -> Restored:
        """Runs the run folder's restore.sh, the same that a person would run, and proves by the journal that it worked.

        Harmless when nothing was switched, and when it is repeated. Raises CommandFailed, HostError.
        """
        host = await self._hosts.get(step.server.host)
        folder = step.backup.folder if step.backup else step.op.folder(host.spec.state_dir)
        if step.backup is None and await read_backup(host, folder) is None:
            # Without a finished backup no step ever changed anything here.
            return _restored(step, await agent_state(host, step.facts.unit))
        # A switch that still runs would undo the undo, one of an earlier attempt too (its workflow may have been
        # terminated): wait for it, or stop it, and forget that it was done.
        before = (*step.op.ids("switch"), *step.op.ids("restore")[:-1])
        await void(host, folder, *before, change=step.op.change, patience=STOP_LIMIT)
        command = restore_command(host.spec, folder)
        for again in (True, False):
            try:
                await attach(
                    host,
                    step.op.id("restore"),
                    folder,
                    Script.load("komodo.sh", "run_restore.sh"),
                    folder,
                    change=step.op.change,
                    timeout=2 * STOP_LIMIT + timedelta(minutes=2),
                )
            except CommandFailed as error:
                reason = (await agent_state(host, step.facts.unit)).log.reason
                raise CommandFailed(
                    f"the way back did not end well: {error.what}"
                    + (f"; its journal says: {reason}" if reason else ""),
                    code=error.code,
                    tail=error.tail,
                    host=host.spec.name,
                    left=f"{folder} with everything that was saved",
                    cure=logs.cure(reason) or f"on that host: {command} --dry-run, then {command}",
                ) from None
            state = await agent_state(host, step.facts.unit)
            if await _is_back(host, step, state):
                return _restored(step, state)
            if again:
                # Put back by this attempt before, and changed again since (a later attempt switched it).
                await void(host, folder, step.op.id("restore"), change=step.op.change)
        raise CommandFailed(
            f"restore.sh ended well, but {step.facts.unit} does not run {step.facts.version}",
            host=host.spec.name,
            left=f"{folder} with everything that was saved",
            cure=f"on that host: {command}",
        )

    @activity.defn
    async def release_host(self, release: ReleaseHosts) -> Done:
        """Staged leftovers and keepers go, the host's lock is given back. Backups stay. Raises HostError."""
        facts: list[str] = []
        targets: list[tuple[HostSpec, tuple[str, ...]]] = []
        if release.server is not None:
            targets.append((release.server.host, ()))
        if release.core is not None:
            targets.append((release.core.host, release.keepers))
        for spec, keepers in targets:
            host = await self._hosts.get(spec)
            folder = release.op.folder(spec.state_dir)
            # No job: it would hold the lock that is given back here. Half of it done, or all of it twice, does no harm.
            both, args = together(
                (Script.load("komodo.sh", "release_server.sh"), (folder, *keepers)),
                (Script.load("hosts.sh", "unlock.sh"), (spec.state_dir, release.op.change, _LAST_JOBS)),
            )
            done = await host.run(both, *args, timeout=timedelta(minutes=5))
            facts += [f"{spec.name}: removed {what}" for what in parse(done.text).get("removed", [])]
        return Done(facts=tuple(facts))


async def _config_to_write(host: Host, step: ServerStep) -> tuple[tuple[str, str, str], bytes]:
    """(path, base digest, result digest) and the new text with the key in it; empty where no config changes.

    The edit is made again from the very text that was planned: the live file, or, once that is edited, the saved copy.
    """
    if not step.facts.edits:
        return ("", "", ""), b""
    if len(step.facts.edits) > 1:
        raise PlanChanged("the plan edits more than one config of this agent", host=host.spec.name, cure="plan again")
    key = validate(step.key)
    edit = step.facts.edits[0]
    live = await host.read(edit.path)
    source = live
    if live is None or live.sha256 != edit.base_sha256:
        saved = next((f for f in step.backup.files if f.path == edit.path), None) if step.backup else None
        source = await host.read(saved.saved_as) if saved else None
    if source is None or source.sha256 != edit.base_sha256:
        raise _changed(host, edit, "is gone" if live is None else "was changed since the plan was made")
    text = source.data.decode()
    again, planned_text = planned_edit(edit.path, text, edit.base_sha256)
    if again.result_sha256 != edit.result_sha256:
        raise _changed(host, edit, "would be edited differently now than planned")
    new = edit_periphery_config(text, key=key).text
    # A key that is there already is not added beside itself, as the placeholder had to be.
    if new != planned_text.replace(PLACEHOLDER, key) and key not in inspect(text).pinned:
        raise _changed(host, edit, "takes the key in another way than planned")
    data = new.encode()
    result = hashlib.sha256(data).hexdigest()
    if live is None or live.sha256 not in {edit.base_sha256, result}:
        raise _changed(host, edit, "is gone" if live is None else "was changed since the plan was made")
    if result == edit.base_sha256:
        return ("", "", ""), b""
    return (edit.path, edit.base_sha256, result), data


def _changed(host: Host, edit: PlannedEdit, how: str) -> PlanChanged:
    return PlanChanged(
        f"{edit.path} {how}", host=host.spec.name, left="nothing was changed", cure="plan and approve again"
    )


async def _switch(host: Host, step: ServerStep, config: tuple[str, str, str], text: bytes) -> Completed:
    folder = step.op.folder(host.spec.state_dir)
    mark = f"{folder}/switch-{step.op.attempt}"
    wait = str(max(1, round(step.clocks.agent_ready.total_seconds())))
    if step.agent.method == "script":
        url = step.agent.script_url.replace("{version}", step.target)
        name = "switch_by_script.sh"
        args = [mark, step.facts.unit, step.facts.binary, step.target, wait, url]
        limit = step.clocks.download
    else:
        if step.staged is None or not step.staged.path:
            raise HostError("no binary is staged", host=host.spec.name, left="nothing was changed", cure="try again")
        name = "switch_agent.sh"
        args = [mark, step.facts.unit, step.facts.binary, step.facts.binary_sha256]
        args += [step.staged.path, step.staged.sha256, step.target, wait]
        limit = timedelta()
    settling = min(SETTLING, 2 * step.clocks.poll)
    return await attach(
        host,
        step.op.id("switch"),
        folder,
        Script.load("komodo.sh", name),
        *args,
        *config,
        str(math.ceil(step.server.dead_man.total_seconds())),
        data=text,
        change=step.op.change,
        timeout=limit + 2 * STOP_LIMIT + step.clocks.agent_ready,
        then=(Script.load("komodo.sh", "agent_journal.sh"), (step.facts.unit, "", f"{settling.total_seconds():g}")),
    )


def _over(said: dict[str, list[str]]) -> datetime | None:
    at = said.get("puts_itself_back", [])
    return datetime.fromtimestamp(int(at[0]), UTC) if at else None


def _explained(error: CommandFailed, host: Host, undo: str) -> ArtifactError | CommandFailed:
    if error.code == NOT_DOWNLOADED:
        return DownloadFailed(error.what, host=host.spec.name, left="see the message; " + undo, cure="check script_url")
    if error.code == DOES_NOT_RUN:
        return ArtifactError(error.what, host=host.spec.name, left=f"the agent is down; {undo}")
    error.left = f"{error.left}; {undo}" if error.left else undo
    return error


async def _settled(
    host: Host, step: ServerStep, invocation: str, settled: str, now: AgentState
) -> tuple[str, AgentState]:
    """How the start ended, and what is there a moment later: a crash loop says `active` right after each start."""
    if now.invocation == invocation:
        return settled, now
    if settled == "yes" and now.restarts == 0 and now.active == "active":
        # Nothing failed: a person, or the machine, has started it anew since this step was done.
        return settled, now
    state = await agent_state(host, step.facts.unit, invocation)
    if settled != "yes":
        return settled, state
    return f"systemd has restarted it {state.restarts} times since", state


def _prove(host: Host, step: ServerStep, state: AgentState, settled: str, undo: str) -> None:
    log, name, unit = state.log, host.spec.name, step.facts.unit
    left = f"binary and config of {step.target} are in place, {unit} is {state.active or 'unknown'}; {undo}"
    mine = [what for what in log.unparsed if not what.startswith("/") or what in step.facts.config_paths]
    why = log.errors[-1] if log.errors else ""
    if mine:
        raise ConfigNotLoaded(
            f"the agent runs without its config, open to any Core: {mine[0]} was skipped",
            host=name,
            left=left,
            cure="the file is no valid TOML for Komodo, or not readable for the agent",
        )
    if settled != "yes" or state.active != "active" or log.version != step.target:
        said = why or log.reason or f"its journal has nothing about version {step.target} ({settled})"
        raise AgentNotStarted(
            f"{step.target} does not run: {said}",
            host=name,
            left=left,
            cure=logs.cure(said),
        )
    loaded = log.config.core_public_keys if log.config else None
    keys = {understood(entry) or entry for entry in loaded or ()}
    wanted = {step.key} if step.facts.edits else set(step.facts.pinned_keys)
    if not wanted <= keys or not loaded:
        shown = "no core_public_keys" if not loaded else f"core_public_keys {', '.join(loaded)}"
        raise ConfigNotLoaded(
            f"the agent runs with {shown}, not with Core's key",
            host=name,
            left=left,
            cure="is there a second config, or PERIPHERY_CORE_PUBLIC_KEYS in its environment?",
        )


async def _is_back(host: Host, step: ServerStep, state: AgentState) -> bool:
    """The old version runs, and every saved file that we may have changed is in its place."""
    if step.facts.version and state.log.version != step.facts.version:
        return False
    if step.backup is None:
        return state.active == "active"
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
