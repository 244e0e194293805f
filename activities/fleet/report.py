"""The end of a run: the guide's checklist from Core's side, and the report in Core's run folder."""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta

from pydantic import TypeAdapter, ValidationError
from temporalio import activity

from activities.core.access import core_api, database, facts_in, inspect, job, script, until
from activities.heartbeat import attach
from hosts.host import Host
from hosts.ssh.pool import Hosts
from komodo.actions import old_calls
from komodo.core.answers import Update
from komodo.core.api import CoreApi
from komodo.core.containers import Container, info, refuse, warn
from model.errors import CoreAnswered, CoreApiError, DatabaseError, HostError, SecretMissing
from model.facts import Finding
from model.pages.results import joined
from model.status import FleetResult, SaveReport
from model.steps import CoreStep, Done, PostChecks
from model.text.report import render_json, render_markdown

_log = logging.getLogger(__name__)
_MINUTE = timedelta(minutes=1)
_STACK = timedelta(minutes=10)
_PAGES = TypeAdapter(FleetResult)


class Report:
    """What remains to be checked and reported."""

    def __init__(self, hosts: Hosts) -> None:
        self._hosts = hosts

    @activity.defn
    async def post_checks(self, step: CoreStep) -> PostChecks:
        """Versions, servers, keys, init, Actions, backups: read-only, except for a stack that the fleet file names."""
        host = await self._hosts.get(step.fleet.core.host)
        found: list[Finding] = []
        services = [s for s in (step.facts.core, step.facts.agent) if s]
        containers = await inspect(host, *(s.container for s in services))
        for container in containers.values():
            found += _container_findings(container)
        core = containers.get(step.facts.core.container)
        if core is not None:
            found += await _key_findings(host, step, core)
        try:
            async with core_api(self._hosts, step.fleet.core, step.facts) as api:
                found += await _core_findings(host, api, step)
        except (CoreApiError, HostError, SecretMissing) as error:
            found.append(warn("core-not-answering", f"Core could not be asked: {error.what}", error.hint))
        try:
            async with database(self._hosts, step) as (opened, _):
                for document in await opened.actions():
                    text = str((document.get("config") or {}).get("file_contents") or "")
                    found += _action(str(document.get("name", "")), text)
        except (DatabaseError, HostError) as error:
            found.append(warn("actions-unread", f"the Actions could not be read: {error.what}"))
        return PostChecks(findings=tuple(found))

    @activity.defn
    async def save_report_page(self, report: SaveReport) -> Done:
        """Write a later page of the result into Core's run folder, for `save_report`. Raises HostError."""
        host = await self._hosts.get(report.core.host)
        folder = report.op.folder(report.core.host.state_dir)
        path = _page(folder, report.number)
        await attach(
            host,
            report.op.id(f"save_report-{report.number}"),
            folder,
            script("fleet/write_note.sh", path=path),
            data=_PAGES.dump_json(report.page),
            change=report.op.change,
            timeout=_MINUTE,
        )
        return Done(facts=(path,))

    @activity.defn
    async def save_report(self, report: SaveReport) -> Done:
        """Write report.md and report.json into Core's run folder, from all pages. Raises HostError."""
        host = await self._hosts.get(report.core.host)
        folder = report.op.folder(report.core.host.state_dir)
        later = [await _read_page(host, _page(folder, number)) for number in range(2, report.pages + 1)]
        result = joined((report.page, *later))
        markdown, text = render_markdown(result).encode(), render_json(result).encode()
        done = await attach(
            host,
            report.op.id("save_report"),
            folder,
            script(
                "fleet/save_report.sh",
                folder=folder,
                markdown_bytes=str(len(markdown)),
                json_bytes=str(len(text)),
            ),
            data=markdown + text,
            change=report.op.change,
            timeout=_MINUTE,
        )
        return Done(facts=tuple(facts_in(done).get("saved", [])))


def _page(folder: str, number: int) -> str:
    return f"{folder}/report-{number}.json"


async def _read_page(host: Host, path: str) -> FleetResult:
    file = await host.read(path)
    try:
        return _PAGES.validate_json(file.data if file else b"")
    except ValidationError:
        raise HostError(f"{path}, a part of the report, is gone or damaged", host=host.spec.name) from None


def _container_findings(container: Container) -> list[Finding]:
    found = []
    if not container.running:
        found.append(warn("not-running", f"{container.name} does not run", f"`docker logs {container.name}`"))
    if not container.init:
        found.append(
            warn(
                "no-init",
                f"{container.name} runs without init: defunct processes pile up in it",
                "`init: true` in its service, then `up -d`",
            )
        )
    if not container.host_path("/config/keys/core.key"):
        found.append(
            warn(
                "keys-not-kept",
                f"{container.name} has no mount at /config/keys: its key is lost when it is re-created",
                "mount ./keys:/config/keys",
            )
        )
    return found


async def _key_findings(host: Host, step: CoreStep, core: Container) -> list[Finding]:
    found: list[Finding] = []
    state = step.fleet.core.host.state_dir
    private = core.host_path("/config/keys/core.key")
    if not private:
        return found
    public = private.removesuffix(".key") + ".pub"
    output = facts_in(await host.run(script("fleet/survey_paths.sh", private, public, state_dir=state)))
    for line in output.get("file", []):
        digest, owner, mode, path = line.split("\t", 3)
        if digest == "-" and path == private:
            text = f"Core's private key is not at {path} (KOMODO_PRIVATE_KEY set elsewhere?)"
            found.append(warn("no-core-key", text, "keep a copy of the key, wherever it is"))
        elif path == private and (int(mode, 8) & 0o077 or not owner.startswith("0:")):
            text = f"{path} can be read by others than root (mode {mode}, owner {owner})"
            found.append(warn("core-key-open", text, f"chown root:root {path}; chmod 600 {path}"))
    return found


async def _core_findings(host: Host, api: CoreApi, step: CoreStep) -> list[Finding]:
    target = step.fleet.target
    answers = await api.open_version()
    found: list[Finding] = []
    if answers != target:
        found.append(refuse("core-version", f"Core answers as {answers or 'an unknown version'}, not {target}"))
    if not api.has_key:
        text = "without an API key it was not verified that Core sees every server, that lists work, nor schedules"
        return [*found, warn("not-verified", text, "check Servers and Updates in Komodo's UI")]
    wrong = []
    servers = await api.list_servers()
    watched = [s for s in servers if s.enabled and s.name not in (*step.fleet.leave_behind, *step.fleet.not_in_run)]
    for server in watched:
        if server.state != "Ok" or server.version != target:
            reason = f" ({server.err})" if server.err else ""
            wrong.append(f"{server.name}: {server.state} {server.version or 'unknown version'}{reason}")
    if wrong:
        found.append(warn("servers-not-ok", "; ".join(wrong), "see each server's line in this report"))
    else:
        found.append(info("servers-ok", f"Core {target} sees all {len(watched)} enabled servers: Ok, {target}"))
    await api.list_updates()
    if not any(s.enabled and "backup" in s.name.lower() for s in await api.list_schedules()):
        found.append(warn("no-backup-procedure", "no schedule resembles `Backup Core Database`", "add one in Komodo"))
    if step.fleet.restart_stack:
        found.append(await _restart(host, api, step))
    return found


async def _restart(host: Host, api: CoreApi, step: CoreStep) -> Finding:
    """The guide's end-to-end check, once. `success` has no meaning before the Update is Complete.

    A repeated step finds its mark on the host, and in Core the restart that began since, and follows that one.
    """
    stack = step.fleet.restart_stack
    begun = datetime.fromtimestamp(
        int(facts_in(await job(host, step, "restart_stack", script("fleet/record_time.sh")))["at"][0]), UTC
    )
    try:
        mine = await api.stack_restarts(stack, begun)
        update = mine[0] if mine else await api.restart_stack(stack)
    except CoreAnswered as error:
        return warn("stack-restart", f"the stack {stack} was not restarted: {error.what}", "[verify] restart_stack")
    last: Update = update

    async def complete() -> bool:
        nonlocal last
        if last.status != "Complete" and update.id:
            last = await api.get_update(update.id)
        return last.status == "Complete"

    ended = await until(complete, limit=_STACK, poll=step.fleet.timing.poll)
    if ended and last.success:
        return info("stack-restarted", f"the stack {stack} was restarted through Core: success")
    state = "failed" if ended else f"is still {last.status}"
    return warn("stack-restart", f"the restart of the stack {stack} {state}", "check the Update in Komodo")


def _action(name: str, text: str) -> list[Finding]:
    calls = old_calls(text)
    if not calls:
        return []
    where = "; ".join(f"line {c.line}: {c.call}" for c in calls[:5])
    return [warn("action-v1-style", f"the Action {name} still calls terminals the v1 way ({where})", calls[0].hint)]
