"""Core's preflight: read-only, all checks at once. Whatever can be a finding is not raised."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any

from temporalio import activity

from activities.core import findings, resolved
from activities.core import survey as survey_steps
from activities.core.access import core_api, log_of, open_database
from activities.core.coverage import coverage_findings, find_agent_server, known_servers
from activities.core.drift import (
    drifted_containers,
    drifted_files,
    drifted_images,
    files_without_edit,
    in_progress,
    update_words,
)
from activities.core.key_pair import check_writable, inside_findings, pair_findings, pair_folder
from activities.core.survey import CoreSurvey, Ended
from hosts.host import Host
from hosts.ssh.pool import Hosts
from komodo.core import version_steps
from komodo.core.answers import ServerView
from komodo.core.api import CoreApi
from komodo.core.containers import Container, info, published, refuse, service_facts, warn
from komodo.core.database import Database
from komodo.core.image_digests import unresolved, with_target_digest
from komodo.logs import last_run, parse_run
from komodo.public_key import from_pem
from model.errors import CoreApiError, CoreRefused, DatabaseError, HostError, KeyRejected, SecretMissing, UpgradeError
from model.facts import CoreFacts, Finding, KnownServer, ServiceFacts, Severity
from model.fleet.spec import CoreFiles
from model.steps import CoreStep, Recheck, SurveyCore

_SOON = timedelta(hours=12)
_NO_KEY_HINT = (
    "make one as an admin in Komodo (Settings, API Keys) and name it: [core] api_key_env, api_secret_env; it is used "
    "for reading only"
)


_MAY_PASS = ("unreachable", "survey-failed", "api", "core-not-answering", "database-unreachable")
"""Findings that a dropped connection can also cause; the survey is repeated before they are reported."""


class PreflightCore:
    """Surveys Core's host and Core."""

    def __init__(self, hosts: Hosts) -> None:
        self._hosts = hosts

    @activity.defn
    async def survey_core(self, ask: SurveyCore) -> CoreFacts:
        """All facts about Core that the plan needs, with findings for everything that is wrong."""
        facts = await self._survey(ask)
        if any(f.severity is Severity.REFUSE and f.code in _MAY_PASS for f in facts.findings):
            # A connection that drops during a survey is no reason to refuse an upgrade.
            await asyncio.sleep(ask.fleet.timing.poll.total_seconds())
            facts = await self._survey(ask)
        return facts

    async def _survey(self, ask: SurveyCore) -> CoreFacts:
        try:
            host = await self._hosts.get(ask.fleet.core.host)
        except UpgradeError as error:
            return CoreFacts(findings=(refuse("unreachable", error.what, error.hint),))
        survey = CoreSurvey(fleet=ask.fleet, host=host)
        known: tuple[KnownServer, ...] = ()
        facts = CoreFacts(reachable=True)
        try:
            await survey_steps.lock(survey)
            await survey_steps.containers(survey)
            await survey_steps.settings(survey)
            await resolved.read_files(survey)
            await resolved.find_asleep(survey)
            await survey_steps.prove_project(survey)
            await resolved.compare(survey)
            facts = facts_so_far(survey)
            facts, known = await self._ask_core(survey, facts)
        except Ended:
            pass
        except UpgradeError as error:
            survey.findings.append(refuse("survey-failed", error.what, error.hint))
        return self._finished(survey, facts, known)

    @activity.defn
    async def recheck_core(self, step: CoreStep) -> Recheck:
        """Differences from the plan, and Updates in progress now."""
        host = await self._hosts.get(step.fleet.core.host)
        facts = step.facts
        drift = [*await drifted_files(host, step), *await drifted_containers(host, facts)]
        drift += await drifted_images(host, facts)
        busy: tuple[str, ...] = ()
        try:
            busy = await in_progress(self._hosts, step)
        except (CoreApiError, DatabaseError, SecretMissing) as error:
            drift.append(f"Core cannot be asked what is in progress: {error.what}")
        missing = await files_without_edit(host, step)
        return Recheck(drift=tuple(drift), busy=busy, missing=tuple(missing))

    async def _ask_core(self, survey: CoreSurvey, facts: CoreFacts) -> tuple[CoreFacts, tuple[KnownServer, ...]]:
        documents = await self._from_database(survey)
        facts = replace(facts, database=survey.database)
        async with contextlib.AsyncExitStack() as stack:
            try:
                api = await stack.enter_async_context(core_api(self._hosts, survey.fleet.core, facts))
                facts, servers = await self._from_api(survey, facts, api)
            except (SecretMissing, HostError) as error:
                survey.findings.append(refuse("api", error.what, error.hint))
                servers = ()
            except CoreApiError as error:
                code = "api-refused" if isinstance(error, CoreRefused) else "core-not-answering"
                survey.findings.append(refuse(code, error.what, error.hint))
                servers = ()
        facts = replace(facts, version=survey.version)
        known = known_servers(servers, documents.get("servers", ()))
        agent_server = find_agent_server(known, survey.agent)
        facts = replace(facts, servers=known, agent_server=agent_server)
        busy = facts.busy or tuple(update_words(u) for u in documents.get("updates", ()))
        if documents:
            survey.findings += version_steps.findings(documents, survey.version, survey.fleet.target)
            survey.findings += version_steps.stack_findings(documents["stacks"], survey.project)
        if known or documents:
            survey.findings += coverage_findings(survey.fleet, known, agent_server)
        facts = replace(facts, public_key=await self._key_of(survey, facts))
        await survey_steps.edits(survey, facts.public_key)
        await survey_steps.images(survey)
        survey.agent_version = await _agent_version(survey, known, agent_server)
        survey_steps.dump_tool(survey)
        findings.check(survey, facts.public_key)
        survey.findings += await pair_findings(survey)
        survey.findings += await inside_findings(survey, facts.public_key)
        await check_writable(survey)
        return replace(facts, busy=busy), known

    async def _from_database(self, survey: CoreSurvey) -> Mapping[str, tuple[Mapping[str, Any], ...]]:
        if survey.database is None or survey.settings is None or survey.settings.database is None:
            return {}
        if not survey.database.reach:
            survey.findings.append(
                refuse("database", f"the database's container {survey.database.container} does not run")
            )
            return {}
        try:
            async with open_database(survey.host, survey.settings.database, survey.database.reach) as opened:
                await survey_steps.database(survey, opened)
                return await _documents(opened)
        except (DatabaseError, HostError) as error:
            survey.findings.append(refuse("database-unreachable", error.what, error.hint))
            return {}

    async def _from_api(
        self, survey: CoreSurvey, facts: CoreFacts, api: CoreApi
    ) -> tuple[CoreFacts, tuple[ServerView, ...]]:
        flavour = await api.flavour()
        if flavour is None:
            survey.findings.append(
                refuse(
                    "core-not-answering",
                    f"what answers at {survey.fleet.core.url or facts.published} is not Komodo Core",
                    "check [core].url, or leave it out",
                )
            )
            return facts, ()
        options = await api.login_options()
        if not options.local:
            survey.findings.append(
                warn(
                    "no-local-login",
                    "Core offers no login by user name and password: if the other login fails in v2, nobody can log in",
                    "set KOMODO_LOCAL_AUTH=true and give an admin a password, or keep an admin's API key",
                )
            )
        if flavour == 1 and survey.fleet.target:
            survey.findings.append(
                info("sessions", "all users are logged out: v1's sessions do not survive the upgrade")
            )
        survey.version = (await api.open_version()) or survey.version
        if not api.has_key:
            survey.findings.append(_no_key())
            return facts, ()
        caller = await api.caller()
        if not caller.admin:
            survey.findings.append(
                refuse(
                    "api-not-admin",
                    f"the API key belongs to {caller.username}, not an admin: Core would show only some of the servers",
                    _NO_KEY_HINT,
                )
            )
        survey.version = (await api.version()) or survey.version
        information = await api.core_info()
        servers = await api.list_servers()
        survey.findings += await _schedule_findings(api, survey.host)
        busy = tuple(str(u) for u in await api.list_updates(open_only=True))
        return replace(facts, api=True, monitoring_interval=information.monitoring_interval, busy=busy), servers

    async def _key_of(self, survey: CoreSurvey, facts: CoreFacts) -> str:
        """Core's public key where Core is v2 already: from its API, its log or `core.pub`, in this order."""
        if not survey.version or survey.version.startswith("1.") or survey.core is None:
            return ""
        if facts.api:
            async with core_api(self._hosts, survey.fleet.core, facts) as api:
                return (await api.core_info()).public_key
        key = parse_run(last_run(await log_of(survey.host, survey.core.name))).public_key
        private = survey.core.host_path("/config/keys/core.key")
        if key or not private:
            return key
        file = await survey.host.read(private.removesuffix(".key") + ".pub")
        try:
            return from_pem(file.data.decode(errors="replace")) if file else ""
        except KeyRejected:
            return ""

    def _finished(self, survey: CoreSurvey, facts: CoreFacts, known: tuple[KnownServer, ...]) -> CoreFacts:
        edits = survey.edits.planned(survey.repositories) if survey.edits else ()
        version = survey.version
        # Findings about Core itself; its project's agent may still lack the key.
        current = bool(survey.edits) and all(e.with_key for e in edits) and version == survey.fleet.target
        findings = survey.findings
        if current:
            findings = [f for f in findings if f.code not in ("no-mongodump", "no-space")]
        if current and edits and survey.agent:
            text = f"{survey.agent.name}, the agent in Core's project, does not have Core's key: it logs in by passkey"
            findings.append(warn("agent-without-key", text, "the upgrade pins it and re-creates the agent"))
        if survey.fleet.core.files == CoreFiles.EXTERNAL and any(e.with_key for e in edits):
            text = "Core's key would be written into files that others edit ([core] files), and is known too late"
            hint = "there, let the agent read it: PERIPHERY_CORE_PUBLIC_KEYS=file:/config/keys/core.pub"
            findings = [*findings, refuse("external-key", text, hint)]
        core, agent = _service(survey, survey.core, version), _service(survey, survey.agent, survey.agent_version)
        if not current:
            findings = [*findings, *unresolved((core, agent))]
        return replace(
            facts,
            current=current,
            version=version,
            core=core,
            agent=agent,
            edits=edits,
            keys_dir=survey.edits.keys_dir if survey.edits else "",
            servers=known or facts.servers,
            sources=tuple(survey.sources),
            findings=tuple(findings),
        )


def facts_so_far(survey: CoreSurvey) -> CoreFacts:
    """Facts that are known before Core itself is asked."""
    port = survey.settings.port if survey.settings else 9120
    place = published(survey.core, port) if survey.core else ""
    if survey.core is not None:
        where = (
            f"published port of {survey.core.name}" if place else f"address of {survey.core.name} (no published port)"
        )
        survey.sources.append(f"Core's API at {survey.fleet.core.url or place or where}, from the {where}")
    return CoreFacts(
        reachable=True,
        state_place=survey.state_place,
        core=_service(survey, survey.core, survey.version),
        agent=_service(survey, survey.agent, ""),
        project=survey.project,
        database=survey.database,
        published=place,
        core_port=port,
        core_ssl=bool(survey.settings and survey.settings.ssl),
        docker_version=survey.docker,
        compose_version=survey.compose,
        free_bytes=survey.free,
        monitoring_interval=survey.settings.monitoring_interval if survey.settings else timedelta(seconds=15),
        host_name=survey.settings.host_name if survey.settings else "",
    )


async def _agent_version(survey: CoreSurvey, known: tuple[KnownServer, ...], name: str) -> str:
    """The agent's version as Core sees it; where Core does not (another version, no API key), as the agent's log shows
    it.
    """
    seen = next((s.version for s in known if s.name == name), "")
    if survey.agent is None or seen[:1].isdigit():
        return seen
    return parse_run(last_run(await log_of(survey.host, survey.agent.name))).version


def _service(survey: CoreSurvey, container: Container | None, version: str) -> ServiceFacts | None:
    if container is None:
        return None
    service = container.service
    if survey.edits and not service:
        service = survey.edits.core_service if container is survey.core else survey.edits.agent_service
    target = survey.edits.images.get(service, "") if survey.edits else ""
    facts = service_facts(container, version=version, target_image=target)
    facts = replace(
        facts,
        service=service,
        repo_digest=survey.digests.get(container.image_id, ""),
        keys_to=pair_folder(survey, container),
    )
    return with_target_digest(facts, survey.published)


async def _documents(opened: Database) -> Mapping[str, tuple[Mapping[str, Any], ...]]:
    return {
        "servers": await opened.servers(),
        "actions": await opened.actions(),
        "procedures": await opened.procedures(),
        "stacks": await opened.stacks(),
        "updates": await opened.open_updates(),
        "builders": await opened.find("Builder", {"config.type": "Aws"}, ("name", "config.params.docker_registries")),
        "old_accounts": await opened.find("DockerRegistryAccount", {}, ("domain", "username")),
        "new_accounts": await opened.find("ImageRegistryAccount", {}, ("domain", "username")),
    }


async def _schedule_findings(api: CoreApi, host: Host) -> list[Finding]:
    now = await host.clock()
    due = [s for s in await api.list_schedules() if s.enabled and s.next_run and now <= s.next_run <= now + _SOON]
    if not due:
        return []
    listed = ", ".join(f"{s.name} at {s.next_run:%H:%M} UTC" for s in due if s.next_run)
    return [
        warn(
            "schedules-due",
            f"due within 12 hours: {listed}. They fail on servers that are not upgraded by then",
            "start afterwards, or disable them during the upgrade",
        )
    ]


def _no_key() -> Finding:
    return warn(
        "no-api-key",
        "no API key: Core's own view is not available. Not verified will be: that Core sees each server again (the "
        "agents' own logs are the proof), that lists work after the upgrade, schedules",
        _NO_KEY_HINT,
    )
