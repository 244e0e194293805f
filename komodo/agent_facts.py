"""From what was read from a machine to the facts that the plan is made from. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

from komodo import releases
from komodo.agent_findings import findings_of
from komodo.agent_survey import ConfigFile, Survey, one
from komodo.diff import masked_diff
from komodo.periphery_config import ConfigFacts, edit_periphery_config, inspect
from komodo.public_key import PLACEHOLDER
from model.errors import EditRefused
from model.facts import Finding, Install, PlannedEdit, ServerFacts, Severity


def server_facts(survey: Survey) -> ServerFacts:
    """What the plan is made from."""
    found, machine, files = survey.unit, survey.machine, survey.files
    inspected = {c.path: inspect(c.text) for c in survey.configs if c.text is not None}
    pinned = tuple(key for facts in inspected.values() for key in facts.pinned)
    version = releases.version_said(one(files, "binary_version"))
    running = survey.log.version if found.active else ""
    on_target = version == survey.target and running in {survey.target, ""} and found.active
    open_today = _open_today(survey, inspected)
    findings = findings_of(survey, inspected, version, open_today=open_today)
    current = on_target and bool(pinned) and not any(f.severity is Severity.REFUSE for f in findings)
    edits: tuple[PlannedEdit, ...] = ()
    if survey.configs:
        edits, refused = _edits(survey, inspected)
        # Whether v2's pinned key is Core's, so that no edit is needed, is judged when the plan is made.
        findings += () if pinned and (releases.version_of(version) or (0,)) >= releases.FIRST_V2 else refused
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
        user_unit=bool(machine.get("user_unit")) and not found.exists,
        edits=edits,
        pinned_keys=pinned,
        open_today=open_today,
        state_place=one(files, "state_place"),
        sources=_sources(survey),
        findings=tuple(findings),
    )


def planned_edit(path: str, text: str, sha256: str) -> tuple[PlannedEdit, str]:
    """The edit of one config with the placeholder where Core's key will be, and its text. Raises EditRefused."""
    edited = edit_periphery_config(text, key=PLACEHOLDER)
    edit = PlannedEdit(
        path=path,
        kind="periphery-config",
        base_sha256=sha256,
        result_sha256=hashlib.sha256(edited.text.encode()).hexdigest(),
        diff=masked_diff(text, edited.text, path, "periphery-config"),
        reasons=edited.reasons,
    )
    return edit, edited.text


def _edits(survey: Survey, inspected: Mapping[str, ConfigFacts]) -> tuple[tuple[PlannedEdit, ...], tuple[Finding, ...]]:
    chosen = _file_to_edit(survey.configs, inspected)
    if chosen is None or chosen.text is None or not inspected[chosen.path].loads:
        return (), ()
    try:
        edit, _ = planned_edit(chosen.path, chosen.text, chosen.sha256)
    except EditRefused as error:
        name = survey.server.name
        cure = (error.cure + ("\n" if error.cure and error.snippet else "") + error.snippet) or "edit it by hand"
        return (), (Finding(code="edit-refused", severity=Severity.REFUSE, subject=name, text=error.what, cure=cure),)
    return ((edit,) if edit.result_sha256 != edit.base_sha256 else ()), ()


def _file_to_edit(configs: Sequence[ConfigFile], inspected: Mapping[str, ConfigFacts]) -> ConfigFile | None:
    """Files are merged from left to right and lists are joined: where keys or passkeys are already, else the last."""
    readable = [c for c in configs if c.text is not None]
    for wanted in ("core_public_keys", "passkeys"):
        for config in reversed(readable):
            if getattr(inspected[config.path], wanted) is not None:
                return config
    return readable[-1] if readable else None


def _open_today(survey: Survey, inspected: Mapping[str, ConfigFacts]) -> bool:
    """Whether the running agent accepts any Core. Its own log knows best; else what its files say."""
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
