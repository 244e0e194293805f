"""Core's preflight: read-only, everything at once, and nothing raised that a finding can say."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any

from temporalio import activity

from activities import core_judgement, core_resolved, core_survey, core_user
from activities.core_access import core_api, log_of, open_database
from activities.core_drift import drifted_containers, drifted_files, in_progress, update_words
from activities.core_key import pair_findings
from activities.core_survey import Ended, Look
from activities.fates import fate_findings, find_agent_server, known_servers
from hosts.host import Host
from hosts.pool import Hosts
from komodo.actions import old_calls
from komodo.core_api import CoreApi, ServerView
from komodo.database import Database
from komodo.logs import last_run, parse_run
from komodo.project import Container, info, published, refuse, service_facts, warn
from komodo.public_key import from_pem
from model.errors import (
    CoreApiError,
    CoreRefused,
    DatabaseError,
    HostError,
    KeyRejected,
    SecretMissing,
    UpgradeError,
)
from model.facts import CoreFacts, Finding, KnownServer, ServiceFacts, Severity
from model.steps import CoreStep, Recheck, SurveyCore

_SOON = timedelta(hours=12)
_NO_KEY_CURE = (
    "make one as an admin in Komodo (Settings, API Keys) and name it: [core] api_key_env, api_secret_env; it is used "
    "for reading only"
)


_MAY_PASS = ("unreachable", "survey-failed", "api", "core-not-answering", "database-unreachable")
"""What is found also where the line broke while it was looked at: looked at once more before that is believed."""


class PreflightCore:
    """Looks at Core's host and at Core."""

    def __init__(self, hosts: Hosts) -> None:
        self._hosts = hosts

    @activity.defn
    async def survey_core(self, ask: SurveyCore) -> CoreFacts:
        """Everything the plan needs to know of Core, with findings for all that is wrong."""
        facts = await self._survey(ask)
        if any(f.severity is Severity.REFUSE and f.code in _MAY_PASS for f in facts.findings):
            # A line that is cut in the middle of a look is no reason to refuse an upgrade.
            await asyncio.sleep(ask.fleet.clocks.poll.total_seconds())
            facts = await self._survey(ask)
        return facts

    async def _survey(self, ask: SurveyCore) -> CoreFacts:
        try:
            host = await self._hosts.get(ask.fleet.core.host)
        except UpgradeError as error:
            return CoreFacts(findings=(refuse("unreachable", error.what, error.cure),))
        look = Look(fleet=ask.fleet, host=host)
        known: tuple[KnownServer, ...] = ()
        facts = CoreFacts(reachable=True)
        try:
            await core_survey.lock(look)
            await core_survey.containers(look)
            await core_survey.settings(look)
            await core_resolved.read_files(look)
            await core_resolved.find_asleep(look)
            await core_survey.prove_project(look)
            await core_resolved.compare(look)
            facts = _facts(look)
            facts, known = await self._ask_core(look, facts)
        except Ended:
            pass
        except UpgradeError as error:
            look.findings.append(refuse("survey-failed", error.what, error.cure))
        return self._finished(look, facts, known)

    @activity.defn
    async def recheck_core(self, step: CoreStep) -> Recheck:
        """What differs from the plan, and which Updates are in progress now."""
        host = await self._hosts.get(step.fleet.core.host)
        facts = step.facts
        drift = [*await drifted_files(host, step), *await drifted_containers(host, facts)]
        busy: tuple[str, ...] = ()
        try:
            busy = await in_progress(self._hosts, step)
        except (CoreApiError, DatabaseError, SecretMissing) as error:
            drift.append(f"Core cannot be asked what is in progress: {error.what}")
        return Recheck(drift=tuple(drift), busy=busy)

    async def _ask_core(self, look: Look, facts: CoreFacts) -> tuple[CoreFacts, tuple[KnownServer, ...]]:
        documents = await self._from_database(look)
        facts = replace(facts, database=look.database)
        async with contextlib.AsyncExitStack() as stack:
            try:
                api = await stack.enter_async_context(core_api(self._hosts, look.fleet.core, facts))
                facts, servers = await self._from_api(look, facts, api)
            except (SecretMissing, HostError) as error:
                look.findings.append(refuse("api", error.what, error.cure))
                servers = ()
            except CoreApiError as error:
                code = "api-refused" if isinstance(error, CoreRefused) else "core-not-answering"
                look.findings.append(refuse(code, error.what, error.cure))
                servers = ()
        facts = replace(facts, version=look.version)
        known = known_servers(servers, documents.get("servers", ()))
        agent_server = find_agent_server(known, look.agent)
        facts = replace(facts, servers=known, agent_server=agent_server)
        busy = facts.busy or tuple(update_words(u) for u in documents.get("updates", ()))
        look.findings += _document_findings(documents, look)
        if known or documents:
            look.findings += fate_findings(look.fleet, known, agent_server)
        facts = replace(facts, public_key=await self._key_of(look, facts))
        await core_survey.edits(look, facts.public_key)
        await core_survey.images(look)
        look.agent_version = await _agent_version(look, known, agent_server)
        core_survey.dump_tool(look)
        core_judgement.judge(look, facts.public_key)
        look.findings += await pair_findings(look)
        await core_user.look_at_keys(look)
        return replace(facts, busy=busy), known

    async def _from_database(self, look: Look) -> Mapping[str, tuple[Mapping[str, Any], ...]]:
        if look.database is None or look.settings is None or look.settings.database is None:
            return {}
        if not look.database.reach:
            look.findings.append(refuse("database", f"the database's container {look.database.container} does not run"))
            return {}
        try:
            async with open_database(look.host, look.settings.database, look.database.reach) as opened:
                await core_survey.database(look, opened)
                return await _documents(opened)
        except (DatabaseError, HostError) as error:
            look.findings.append(refuse("database-unreachable", error.what, error.cure))
            return {}

    async def _from_api(self, look: Look, facts: CoreFacts, api: CoreApi) -> tuple[CoreFacts, tuple[ServerView, ...]]:
        flavour = await api.flavour()
        if flavour is None:
            look.findings.append(
                refuse(
                    "core-not-answering",
                    f"what answers at {look.fleet.core.url or facts.published} is not Komodo Core",
                    "check [core].url, or leave it out",
                )
            )
            return facts, ()
        options = await api.login_options()
        if not options.local:
            look.findings.append(
                warn(
                    "no-local-login",
                    "Core offers no login by user name and password: if the other login breaks in v2, nobody gets in",
                    "set KOMODO_LOCAL_AUTH=true and have an admin with a password, or keep an admin's API key",
                )
            )
        if flavour == 1 and look.fleet.target:
            look.findings.append(info("sessions", "everybody is logged out: v1's sessions do not survive the upgrade"))
        look.version = (await api.open_version()) or look.version
        if not api.has_key:
            look.findings.append(_no_key())
            return facts, ()
        caller = await api.caller()
        if not caller.admin:
            look.findings.append(
                refuse(
                    "api-not-admin",
                    f"the API key belongs to {caller.username}, who is no admin: Core would show a part of the servers",
                    _NO_KEY_CURE,
                )
            )
        look.version = (await api.version()) or look.version
        information = await api.core_info()
        servers = await api.list_servers()
        look.findings += await _schedule_findings(api, look.host)
        busy = tuple(str(u) for u in await api.list_updates(open_only=True))
        return replace(facts, api=True, monitoring_interval=information.monitoring_interval, busy=busy), servers

    async def _key_of(self, look: Look, facts: CoreFacts) -> str:
        """Core's public key where Core is v2 already: from its API, else from its log, else from `core.pub`."""
        if not look.version or look.version.startswith("1.") or look.core is None:
            return ""
        if facts.api:
            async with core_api(self._hosts, look.fleet.core, facts) as api:
                return (await api.core_info()).public_key
        said = parse_run(last_run(await log_of(look.host, look.core.name))).public_key
        private = look.core.host_path("/config/keys/core.key")
        if said or not private:
            return said
        file = await look.host.read(private.removesuffix(".key") + ".pub")
        try:
            return from_pem(file.data.decode(errors="replace")) if file else ""
        except KeyRejected:
            return ""

    def _finished(self, look: Look, facts: CoreFacts, known: tuple[KnownServer, ...]) -> CoreFacts:
        edits = look.edits.planned() if look.edits else ()
        version = look.version
        # Of Core itself; its project's agent may still be without the key.
        current = bool(look.edits) and all(e.with_key for e in edits) and version == look.fleet.target
        findings = look.findings
        if current:
            findings = [f for f in findings if f.code not in ("no-mongodump", "no-space")]
        if current and edits and look.agent:
            text = f"{look.agent.name}, the agent in Core's project, does not have Core's key: it logs in by passkey"
            findings.append(warn("agent-without-key", text, "the upgrade pins it and re-creates the agent"))
        return replace(
            facts,
            current=current,
            version=version,
            core=_service(look, look.core, version),
            agent=_service(look, look.agent, look.agent_version),
            edits=edits,
            keys_dir=look.edits.keys_dir if look.edits else "",
            servers=known or facts.servers,
            sources=tuple(look.sources),
            findings=tuple(findings),
        )


def _facts(look: Look) -> CoreFacts:
    """What is known before Core itself was asked."""
    port = look.settings.port if look.settings else 9120
    place = published(look.core, port) if look.core else ""
    if look.core is not None:
        where = f"published port of {look.core.name}" if place else f"address of {look.core.name} (no published port)"
        look.sources.append(f"Core's API at {look.fleet.core.url or place or where}, from the {where}")
    return CoreFacts(
        reachable=True,
        state_place=look.state_place,
        core=_service(look, look.core, look.version),
        agent=_service(look, look.agent, ""),
        project=look.project,
        database=look.database,
        published=place,
        core_port=port,
        core_ssl=bool(look.settings and look.settings.ssl),
        docker_version=look.docker,
        compose_version=look.compose,
        free_bytes=look.free,
        monitoring_interval=look.settings.monitoring_interval if look.settings else timedelta(seconds=15),
        host_name=look.settings.host_name if look.settings else "",
    )


async def _agent_version(look: Look, known: tuple[KnownServer, ...], name: str) -> str:
    """As Core sees it; where Core does not (another version, no API key), as the agent's own log says."""
    seen = next((s.version for s in known if s.name == name), "")
    if look.agent is None or seen[:1].isdigit():
        return seen
    return parse_run(last_run(await log_of(look.host, look.agent.name))).version


def _service(look: Look, container: Container | None, version: str) -> ServiceFacts | None:
    if container is None:
        return None
    service = container.service
    if look.edits and not service:
        service = look.edits.core_service if container is look.core else look.edits.agent_service
    target = look.edits.images.get(service, "") if look.edits else ""
    facts = service_facts(container, version=version, target_image=target)
    return replace(facts, service=service, repo_digest=look.digests.get(container.image_id, ""))


async def _documents(opened: Database) -> Mapping[str, tuple[Mapping[str, Any], ...]]:
    return {
        "servers": await opened.servers(),
        "actions": await opened.actions(),
        "procedures": await opened.procedures(),
        "stacks": await opened.stacks(),
        "updates": await opened.open_updates(),
    }


def _document_findings(documents: Mapping[str, tuple[Mapping[str, Any], ...]], look: Look) -> list[Finding]:
    if not documents or look.version.startswith("2."):
        return []
    found: list[Finding] = []
    for action in documents["actions"]:
        calls = old_calls(str((action.get("config") or {}).get("file_contents") or ""))
        if calls:
            where = "; ".join(f"line {c.line}: {c.call} ({c.cure})" for c in calls[:5])
            found.append(
                warn(
                    "action-v1-style",
                    f"the Action {action.get('name')} will fail in v2 when it is run: {where}",
                    "rewrite it after the upgrade; the report shows which are still to do",
                )
            )
    if documents["actions"]:
        found.append(
            info(
                "actions-npm",
                "v2's Actions load npm:mogh_auth_client when they run: without a way to registry.npmjs.org each fails",
            )
        )
    if not any(_backs_up(p) for p in documents["procedures"]):
        found.append(
            warn(
                "no-backup-procedure",
                "no enabled Procedure runs `Backup Core Database`: Komodo makes no backups of its own",
                "add one in Komodo (it is there by default since v1.19.0)",
            )
        )
    project = look.project.name if look.project else ""
    for stack in documents["stacks"]:
        config = stack.get("config") or {}
        if project and (config.get("project_name") or stack.get("name")) == project:
            text = f"the Stack {stack.get('name')} of Komodo has the name of Core's own compose project, {project}"
            if config.get("files_on_host") and config.get("run_directory") == (look.project and look.project.directory):
                found.append(warn("core-is-a-stack", text, "do not deploy it while the upgrade runs"))
            else:
                found.append(
                    warn(
                        "core-is-a-stack",
                        text,
                        "if it is Core itself: do not deploy it until its files have the edits",
                    )
                )
    return found


def _backs_up(procedure: Mapping[str, Any]) -> bool:
    config = procedure.get("config") or {}
    if not config.get("schedule") or not config.get("schedule_enabled", True):
        return False
    for stage in config.get("stages") or []:
        for item in stage.get("executions") or []:
            if item.get("enabled", True) and (item.get("execution") or {}).get("type") == "BackupCoreDatabase":
                return True
    return False


async def _schedule_findings(api: CoreApi, host: Host) -> list[Finding]:
    now = await host.clock()
    due = [s for s in await api.list_schedules() if s.enabled and s.next_run and now <= s.next_run <= now + _SOON]
    if not due:
        return []
    listed = ", ".join(f"{s.name} at {s.next_run:%H:%M} UTC" for s in due if s.next_run)
    return [
        warn(
            "schedules-due",
            f"due within 12 hours: {listed}. On servers that are not upgraded by then they fail",
            "start afterwards, or switch them off for tonight",
        )
    ]


def _no_key() -> Finding:
    return warn(
        "no-api-key",
        "no API key: Core's own view is not available. Not verified will be: that Core sees each server again (the "
        "agents' own logs are the proof), that lists work after the upgrade, schedules",
        _NO_KEY_CURE,
    )
