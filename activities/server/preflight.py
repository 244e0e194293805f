"""The survey of a server before anything is changed there, and its recheck when the gate opens. Read-only."""

from __future__ import annotations

import asyncio
import base64
import hashlib
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from activities.fleet.locks import lock_on
from activities.server.artifacts import Digests
from activities.server.connection import try_address
from activities.server.pins import keys_in_files
from activities.server.survey import READ, facts_of, scope_of, state_of
from hosts.exec.script import Script, combine, parse
from hosts.host import Host
from hosts.known_secrets import learn
from komodo.agent import outbound
from komodo.agent.findings import BINARY_BYTES
from komodo.agent.kinds import FoundAgent, choose_agent
from komodo.agent.survey import ConfigFile, Survey, one, settings_of, unit_of
from komodo.agent.unit import Unit, with_settings
from komodo.agent.user import keys_folder
from komodo.files.periphery_toml import inspect
from komodo.logs import RunLog
from komodo.releases import guide_suffix, printed_version
from model.errors import UpgradeError
from model.facts import KEY_FILE, Finding, Install, ServerFacts, Severity
from model.fleet.spec import AgentInstall, Download, slug
from model.steps import Recheck, RecheckServer, SurveyServer

DIGEST = timedelta(minutes=4)
"""Timeout for a download whose digest is recorded; the survey itself ends after five minutes."""
LIMIT = 256 * 1024
"""Bytes of a config file that are read; real ones have a few thousand."""


async def with_digest(digests: Digests, host: Host, survey: SurveyServer, facts: ServerFacts) -> ServerFacts:
    """The facts with the digest of the new binary, which binds the plan to it."""
    if not facts.arch or facts.install is not Install.SYSTEMD:
        return facts

    async def by_host(url: str) -> str:
        script = Script.load("komodo.sh", "server/url_digest.sh", url=url)
        return one(parse((await host.run(script, root=False, timeout=DIGEST)).text), "sha256")

    asked = None if survey.agent.download == Download.WORKER else by_host
    try:
        sha256, source = await digests.required(survey.agent, survey.target, facts.arch, asked)
    except UpgradeError as error:
        if facts.current:
            return facts  # most likely, nothing will be installed
        finding = Finding(
            code="no-digest",
            severity=Severity.REFUSE,
            subject=facts.name,
            text=f"the sha256 of its new binary is unknown: {error.what}",
            hint=f'add sha256 = {{ {facts.arch} = "…" }} under [agent] in the fleet file',
        )
        return replace(facts, findings=(*facts.findings, finding))
    return replace(facts, artifact_sha256=sha256, artifact_source=source)


async def recheck(host: Host, step: RecheckServer) -> Recheck:
    """Differences from the facts of the plan: binary, configs, unit, the staged binary. Raises HostError."""
    facts = step.facts
    wanted = {facts.binary: facts.binary_sha256}
    wanted |= {edit.path: edit.base_sha256 for edit in facts.edits if edit.kind != KEY_FILE}
    if step.staged and step.staged.path:
        wanted[step.staged.path] = step.staged.sha256
    wanted.pop("", None)
    state_dir = step.server.host.state_dir
    script = combine(
        Script.load("komodo.sh", "server/file_facts.sh", *wanted),
        Script.load("komodo.sh", "server/survey_files.sh", state_dir=state_dir, binary=facts.binary),
        Script.load("komodo.sh", "server/survey_server.sh", unit=facts.unit, unit_only="yes", scope=scope_of(facts)),
    )
    output = parse((await host.run(script, timeout=READ)).text)
    seen = facts_of(output)
    drift = []
    for path, sha256 in wanted.items():
        if path not in seen:
            drift.append(f"{facts.name}: {path} is gone")
        elif seen[path].sha256 != sha256:
            drift.append(f"{facts.name}: {path} was changed since the plan was made")
    for key, where in (("free_binary", facts.binary), ("free_state", state_dir)):
        if (free := int(one(output, key) or 0)) < BINARY_BYTES:
            drift.append(f"{facts.name}: only {free // 2**20} MiB are free on the disk of {where}")
    unit = unit_of(output, step.server)
    if unit.path != facts.unit_path or unit.drop_ins != facts.drop_ins:
        drift.append(f"{facts.name}: {facts.unit} or its drop-ins were changed since the plan was made")
    if unit.binary != facts.binary:
        drift.append(f"{facts.name}: {facts.unit} starts {unit.binary or 'something else'} now, not {facts.binary}")
    return Recheck(drift=tuple(drift))


@dataclass(frozen=True, slots=True)
class Machine:
    """What the first round trip of a survey finds, whatever kind of agent the machine has."""

    output: dict[str, list[str]] = field(repr=False)
    """Of survey_server.sh."""
    clock_ahead: timedelta
    agent: FoundAgent | None
    """The one that Core talks to."""
    findings: tuple[Finding, ...] = ()
    """About the others."""


async def read_machine(host: Host, survey: SurveyServer) -> Machine:
    """The machine, its unit, and the agents of other kinds. Raises HostError."""
    asked = datetime.now(UTC)
    scope = "user" if survey.server.install == AgentInstall.SYSTEMD_USER else ""
    script = Script.load("komodo.sh", "server/survey_server.sh", unit=survey.server.unit, scope=scope)
    output = parse((await host.run(script)).text)
    middle = asked + (datetime.now(UTC) - asked) / 2
    chosen = choose_agent(survey.server, output)
    return Machine(output, _ahead(one(output, "now"), middle), chosen.agent, chosen.findings)


async def read_server(host: Host, survey: SurveyServer, machine: Machine) -> Survey:
    """One more round trip, and one for each config file that is too large to come along. Raises HostError."""
    server, output = survey.server, machine.output
    unit = unit_of(output, server)
    settings = settings_of(output, unit)
    unit = with_settings(unit, settings)
    files: dict[str, list[str]] = {}
    configs: tuple[ConfigFile, ...] = ()
    log = RunLog()
    keys = not_writable = ""
    lock = Script.load("komodo.sh", "fleet/lock_owner.sh", state_dir=server.host.state_dir)
    if unit.exists:
        journal = Script.load(
            "komodo.sh", "server/agent_journal.sh", unit=unit.name, invocation=unit.invocation, scope=unit.scope
        )
        script = combine(_files(server.host.state_dir, unit, "bak_v1"), lock, journal)
        files = parse((await host.run(script, timeout=READ)).text)
        log = state_of(files).log
        owner = one(files, "lock")
        version = printed_version(one(files, "binary_version"))
        if (suffix := guide_suffix(version)) != "bak_v1":
            files = parse((await host.run(_files(server.host.state_dir, unit, suffix))).text)
        configs = await read_configs(host, files)
        if keys := keys_folder(unit, settings, configs, files):
            ask = Script.load("komodo.sh", "server/may_write.sh", user=unit.user, folder=keys)
            user_facts = parse((await host.run(ask)).text)
            not_writable = one(user_facts, "not_writable")
    else:
        owner = one(parse((await host.run(lock)).text), "lock")
    use = ""
    if owner and owner.split(" ")[0] != slug(survey.fleet):
        owner, use = await lock_on(host)
    known = Survey(
        server=server,
        target=survey.target,
        fleet=survey.fleet,
        agent=survey.agent,
        machine=output,
        files=files,
        configs=configs,
        unit=unit,
        settings=settings,
        log=log,
        clock_ahead=machine.clock_ahead,
        keys_folder=keys,
        not_writable=not_writable,
        lock=owner,
        lock_use=use,
    )
    inspected = await asyncio.to_thread(lambda: {c.path: inspect(c.text) for c in configs if c.text is not None})
    known = replace(known, key_files=await keys_in_files(host, outbound.pins(known, inspected)))
    if not outbound.connect_to(replace(known, agents_url=survey.agents_url), inspected):
        return known
    _, problem = await try_address(host, survey.agents_url)
    return replace(known, agents_url=survey.agents_url, agents_url_problem=problem)


def _files(state_dir: str, unit: Unit, suffix: str) -> Script:
    return Script.load(
        "komodo.sh",
        "server/survey_files.sh",
        *unit.config_paths,
        state_dir=state_dir,
        binary=unit.binary,
        suffix=suffix,
        limit=str(LIMIT),
    )


def _ahead(now: str, here: datetime) -> timedelta:
    """`date +%s` cuts fractions off, so half a second is added; smaller differences are not measurable."""
    if not now.isdigit():
        return timedelta()
    ahead = datetime.fromtimestamp(int(now) + 0.5, UTC) - here
    return ahead if abs(ahead) > timedelta(seconds=1.5) else timedelta()


async def read_configs(host: Host, files: dict[str, list[str]]) -> tuple[ConfigFile, ...]:
    """The config files of survey_files.sh's output. Raises HostError."""
    found = []
    for number, line in enumerate(files.get("file", []), start=1):
        _origin, path, _sha256, guide = [*line.split("\t"), "", "", ""][:4]
        if (lines := files.get(f"text.{number}")) is not None:
            data = base64.b64decode("".join(lines))
            learn(data, host.spec.address)
        elif (read := await host.read(path, limit=LIMIT)) is not None:
            data = read.data
        else:
            continue
        try:
            text: str | None = data.decode()
        except UnicodeDecodeError:
            text = None
        found.append(ConfigFile(path, hashlib.sha256(data).hexdigest(), text, guide))
    return tuple(found)
