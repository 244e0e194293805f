"""Converts the survey of a machine to the facts that the plan is made from. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from komodo import releases
from komodo.agent import outbound
from komodo.agent.findings import findings_of
from komodo.agent.survey import ConfigFile, Survey, one
from komodo.agent.user import ROOT_DIRECTORY
from komodo.files.edit_set import edit_config, planned_key_file
from komodo.files.owners import foreign_findings
from komodo.files.periphery_toml import ConfigFacts, inspect
from komodo.public_key import PLACEHOLDER
from model.facts import Finding, Install, PlannedEdit, ServerFacts, Severity
from model.fleet.spec import AgentMethod, Pin


def server_facts(survey: Survey) -> ServerFacts:
    """The facts that the plan is made from."""
    found, machine, files = survey.unit, survey.machine, survey.files
    inspected = {c.path: inspect(c.text) for c in survey.configs if c.text is not None}
    pinned = outbound.pins(survey, inspected)
    version = releases.printed_version(one(files, "binary_version"))
    running = survey.log.version if found.active else ""
    on_target = version == survey.target and running in {survey.target, ""} and found.active
    is_open = open_today(survey, inspected)
    findings = findings_of(survey, inspected, version, open_today=is_open)
    connect_to = outbound.connect_to(survey, inspected)
    current = on_target and bool(pinned) and not connect_to and not any(f.severity is Severity.REFUSE for f in findings)
    edits: tuple[PlannedEdit, ...] = ()
    repin: tuple[PlannedEdit, ...] = ()
    if survey.configs and not outbound.keys_in_environment(survey):
        edits, refused = _edits(survey, inspected)
        if survey.agent.pin == Pin.FILE and len(pinned) == 1 and not current and outbound.loaded(survey):
            repin, _ = _edits(survey, inspected, instead_of=pinned[0])
        # Whether v2's pinned key is Core's, so that no edit is needed, is decided when the plan is made.
        findings += () if pinned and (releases.version_of(version) or (0,)) >= releases.FIRST_V2 else refused
    replaced = [edit.path for edit in edits]
    if survey.agent.method == AgentMethod.BINARY and not current:
        replaced.append(found.binary)
    findings += foreign_findings(survey.server.name, files.get("foreign", ()), replaced)
    return ServerFacts(
        name=survey.server.name,
        install=Install.SYSTEMD if found.exists else Install.UNKNOWN,
        reachable=True,
        current=current,
        version=version,
        running_version=running,
        arch=releases.arch_of(one(machine, "machine")),
        os_name=one(machine, "os"),
        glibc=one(machine, "glibc"),
        openssl3={"yes": True, "no": False}.get(one(machine, "openssl3")),
        free_bytes=int(one(files, "free_binary") or 0),
        clock_ahead=survey.clock_ahead,
        unit=found.name,
        unit_path=found.path,
        drop_ins=found.drop_ins,
        binary=found.binary,
        binary_sha256=one(files, "binary_sha256"),
        config_paths=tuple(c.path for c in survey.configs),
        user_unit=bool(found.scope),
        edits=edits,
        repin=repin,
        pinned_keys=pinned,
        file_keys=tuple(key for entry in pinned if (key := survey.key_files.get(entry))),
        connect_to=connect_to,
        outbound=bool(outbound.addresses(survey, inspected)),
        open_today=is_open,
        state_place=one(files, "state_place"),
        sources=_sources(survey),
        findings=tuple(findings),
    )


def _edits(
    survey: Survey, inspected: Mapping[str, ConfigFacts], instead_of: str = ""
) -> tuple[tuple[PlannedEdit, ...], tuple[Finding, ...]]:
    """What pins Core's key, replacing `instead_of` or in addition to the present keys, and why it cannot be edited."""
    chosen = _file_to_edit(survey.configs, inspected)
    if chosen is None or chosen.text is None or not inspected[chosen.path].loads:
        return (), ()
    path = key_file(survey, inspected) if survey.agent.pin == Pin.FILE else ""
    edit = edit_config(
        chosen.path, chosen.text, PLACEHOLDER, by_file=bool(path), key_file=f"file:{path}", instead_of=instead_of
    )
    if edit.refused is None and not edit.changed:
        return (), ()
    if edit.refused is None:
        return (edit.planned(), *((planned_key_file(path),) if path else ())), ()
    error, name = edit.refused, survey.server.name
    hint = (error.hint + ("\n" if error.hint and error.snippet else "") + error.snippet) or "edit it by hand"
    return (), (Finding(code="edit-refused", severity=Severity.REFUSE, subject=name, text=error.what, hint=hint),)


def key_file(survey: Survey, inspected: Mapping[str, ConfigFacts]) -> str:
    """Where this agent keeps Core's key; empty where its folder is not known, or could be read in another way."""
    named = [facts.root_directory for facts in inspected.values() if facts.root_directory != ROOT_DIRECTORY]
    loaded = survey.log.config.root_directory if survey.log.config else ""
    root = loaded or survey.settings.get("PERIPHERY_ROOT_DIRECTORY") or (named or [ROOT_DIRECTORY])[-1]
    return f"{root.rstrip('/')}/keys/core.pub" if re.fullmatch(r"/[\w./-]+", root) else ""


def _file_to_edit(configs: Sequence[ConfigFile], inspected: Mapping[str, ConfigFacts]) -> ConfigFile | None:
    """Files are merged from left to right and lists are joined: where keys or passkeys are already, else the last."""
    readable = [c for c in configs if c.text is not None]
    for wanted in ("core_public_keys", "passkeys"):
        for config in reversed(readable):
            if getattr(inspected[config.path], wanted) is not None:
                return config
    return readable[-1] if readable else None


def open_today(survey: Survey, inspected: Mapping[str, ConfigFacts]) -> bool:
    """Whether the running agent accepts any Core. Its own log is decisive; without one, its files are."""
    if not survey.unit.active:
        return False
    config, version = survey.log.config, releases.version_of(survey.log.version)
    if config is not None and version is not None:
        if version < releases.FIRST_V2:
            return not config.passkeys
        return config.core_public_keys == () or (config.core_public_keys is None and config.passkeys is None)
    if any(survey.settings.get(name) for name in ("PERIPHERY_PASSKEYS", "PERIPHERY_PASSKEYS_FILE")):
        return False
    loaded = [facts for facts in inspected.values() if facts.loads]
    return not any(facts.passkeys or facts.core_public_keys for facts in loaded)


def _sources(survey: Survey) -> tuple[str, ...]:
    found, server = survey.unit, survey.server
    if not found.exists:
        return ()
    lines = [f"unit {found.name}: {found.path}"]
    lines += [f"drop-in {path}" for path in found.drop_ins]
    if found.binary:
        origin = "the fleet file" if server.binary else f"ExecStart of {found.name}"
        lines.append(f"binary {found.binary}, from {origin}")
    lines += [f"config {path}, from {found.config_source or 'the environment'}" for path in found.config_paths]
    lines += [f"config file {config.path}" for config in survey.configs if config.path not in found.config_paths]
    return tuple(lines)
