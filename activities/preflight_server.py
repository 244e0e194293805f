"""Looking at a server before anything is changed there, and once more when the gate opens. Reads only."""

from __future__ import annotations

import base64
import hashlib
from datetime import UTC, datetime, timedelta

from temporalio import activity

from activities.agent_host import READ, facts_of, state_of
from activities.locks import lock_on
from hosts.host import Host
from hosts.pool import Hosts
from hosts.script import Script, parse, together
from komodo.agent_facts import server_facts
from komodo.agent_findings import BINARY_BYTES
from komodo.agent_survey import ConfigFile, Survey, from_error, one, settings_of, unit_of
from komodo.agent_user import keys_folder
from komodo.logs import RunLog
from komodo.releases import guide_suffix, version_said
from komodo.unit import with_settings
from model.errors import UpgradeError
from model.facts import ServerFacts
from model.fleet import slug
from model.steps import Recheck, ServerStep, SurveyServer

LIMIT = 1024 * 1024
"""Bytes of a config file that are read; a real one has a few thousand."""


class PreflightServer:
    """Read-only looks at one server."""

    def __init__(self, hosts: Hosts) -> None:
        self._hosts = hosts

    @activity.defn
    async def survey_server(self, survey: SurveyServer) -> ServerFacts:
        """Everything about the agent and its machine. What stands in the way comes as findings, never as an error."""
        try:
            host = await self._hosts.get(survey.server.host)
            return server_facts(await read_server(host, survey))
        except UpgradeError as error:
            finding = from_error(survey.server.name, error)
            return ServerFacts(name=survey.server.name, reachable=False, findings=(finding,))

    @activity.defn
    async def recheck_server(self, step: ServerStep) -> Recheck:
        """What differs from the facts of the plan: binary, configs, unit, the staged binary. Raises HostError."""
        host = await self._hosts.get(step.server.host)
        facts = step.facts
        wanted = {facts.binary: facts.binary_sha256}
        wanted |= {edit.path: edit.base_sha256 for edit in facts.edits}
        if step.staged and step.staged.path:
            wanted[step.staged.path] = step.staged.sha256
        wanted.pop("", None)
        state_dir = step.server.host.state_dir
        look, args = together(
            (Script.load("komodo.sh", "file_facts.sh"), tuple(wanted)),
            (Script.load("komodo.sh", "survey_files.sh"), (state_dir, "-", facts.binary)),
            (Script.load("komodo.sh", "survey_server.sh"), (facts.unit, "unit")),
        )
        said = parse((await host.run(look, *args, timeout=READ)).text)
        seen = facts_of(said)
        drift = []
        for path, sha256 in wanted.items():
            if path not in seen:
                drift.append(f"{facts.name}: {path} is gone")
            elif seen[path].sha256 != sha256:
                drift.append(f"{facts.name}: {path} was changed since the plan was made")
        for key, where in (("free_binary", facts.binary), ("free_state", state_dir)):
            if (free := int(one(said, key) or 0)) < BINARY_BYTES:
                drift.append(f"{facts.name}: only {free // 2**20} MiB are free where {where} lies")
        unit = unit_of(said, step.server)
        if unit.path != facts.unit_path or unit.drop_ins != facts.drop_ins:
            drift.append(f"{facts.name}: {facts.unit} or its drop-ins were changed since the plan was made")
        if unit.binary != facts.binary:
            drift.append(f"{facts.name}: {facts.unit} starts {unit.binary or 'something else'} now, not {facts.binary}")
        return Recheck(drift=tuple(drift))


async def read_server(host: Host, survey: SurveyServer) -> Survey:
    """Two round trips, and one for each config file that is too large to come along. Raises HostError."""
    server = survey.server
    asked = datetime.now(UTC)
    said = parse((await host.run(Script.load("komodo.sh", "survey_server.sh"), server.unit)).text)
    middle = asked + (datetime.now(UTC) - asked) / 2
    unit = unit_of(said, server)
    settings = settings_of(said, unit)
    unit = with_settings(unit, settings)
    files: dict[str, list[str]] = {}
    configs: tuple[ConfigFile, ...] = ()
    log = RunLog()
    keys = not_writable = ""
    lock, state_dir = Script.load("komodo.sh", "lock_owner.sh"), server.host.state_dir
    if unit.exists:
        names = Script.load("komodo.sh", "survey_files.sh")
        wanted = (state_dir, "bak_v1", unit.binary, str(LIMIT), *unit.config_paths)
        journal = Script.load("komodo.sh", "agent_journal.sh")
        look, args = together((names, wanted), (lock, (state_dir,)), (journal, (unit.name, unit.invocation)))
        files = parse((await host.run(look, *args, timeout=READ)).text)
        log = state_of(files).log
        owner = one(files, "lock")
        version = version_said(one(files, "binary_version"))
        if (suffix := guide_suffix(version)) != "bak_v1":
            done = await host.run(names, state_dir, suffix, unit.binary, str(LIMIT), *unit.config_paths)
            files = parse(done.text)
        configs = await _configs(host, files)
        if keys := keys_folder(unit, settings, configs, files):
            said_of_user = parse((await host.run(Script.load("komodo.sh", "may_write.sh"), unit.user, keys)).text)
            not_writable = one(said_of_user, "not_writable")
    else:
        owner = one(parse((await host.run(lock, state_dir)).text), "lock")
    use = ""
    if owner and owner.split(" ")[0] != slug(survey.fleet):
        owner, use = await lock_on(host)
    now = one(said, "now")
    return Survey(
        server=server,
        target=survey.target,
        fleet=survey.fleet,
        agent=survey.agent,
        machine=said,
        files=files,
        configs=configs,
        unit=unit,
        settings=settings,
        log=log,
        clock_ahead=_ahead(now, middle),
        keys_folder=keys,
        not_writable=not_writable,
        lock=owner,
        lock_use=use,
    )


def _ahead(now: str, here: datetime) -> timedelta:
    """`date +%s` cuts fractions off, so half a second is added; less than that cannot be told."""
    if not now.isdigit():
        return timedelta()
    ahead = datetime.fromtimestamp(int(now) + 0.5, UTC) - here
    return ahead if abs(ahead) > timedelta(seconds=1.5) else timedelta()


async def _configs(host: Host, files: dict[str, list[str]]) -> tuple[ConfigFile, ...]:
    found = []
    for number, line in enumerate(files.get("file", []), start=1):
        _origin, path, _sha256, guide = [*line.split("\t"), "", "", ""][:4]
        if (lines := files.get(f"text.{number}")) is not None:
            data = base64.b64decode("".join(lines))
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
