"""The rules of preflight for one server: what forbids its upgrade, what an approver must know. Pure.

Each rule yields findings with a stable code and, where it refuses, the way out.
"""

from __future__ import annotations

import ipaddress
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import PurePosixPath
from typing import Any

from komodo import releases
from komodo.agent import aliases, outbound, unit, user
from komodo.agent.survey import ConfigFile, Survey, lock_of_another, locked, one
from komodo.files.periphery_toml import ConfigFacts
from model.facts import Finding, Severity

BINARY_BYTES = 64 * 1024 * 1024
"""Largest expected size of an agent binary; v2.3.2's is far smaller."""
SKEW_WARNED = timedelta(seconds=30)
SKEW_REFUSED = timedelta(minutes=5)
"""v2's API keys tolerate five minutes; our proofs compare the host's times with Core's."""
SCRIPT_BINARY = "/usr/local/bin/periphery"
"""The only place that Komodo's own setup script writes to as root (v2.3.2:scripts/setup-periphery.py)."""

RESTART = "systemctl daemon-reload && systemctl restart {}"
CONFIG = "/etc/komodo/periphery.config.toml"

Findings = Iterator[Finding]


def findings_of(
    survey: Survey, inspected: Mapping[str, ConfigFacts], version: str, *, open_today: bool
) -> list[Finding]:
    """Everything preflight has to say about one server. `version`: of the binary on disk."""
    found: list[Finding] = []
    found += machine_findings(survey)
    found += _tools(survey)
    if not survey.unit.exists:
        return [*found, *_no_unit(survey)]
    found += _unit(survey)
    found += _binary(survey, version)
    found += _environment(survey)
    found += _configs(survey, inspected)
    for config in survey.configs:
        if config.path in inspected:
            found += config_findings(survey, config, inspected[config.path])
    if open_today:
        found += open_agent(survey, found)
    found += aliases.findings(survey.server.name, contents_of(survey.configs), survey.settings)
    found += outbound.findings(survey, inspected)
    found += misspelt_findings(survey)
    found += logging_findings(survey)
    found += _method(survey)
    found += user.findings(survey)
    return found


def open_agent(survey: Survey, found: Sequence[Finding]) -> Findings:
    """Its agent accepts any Core; a config that is skipped is the reason where there is one."""
    if not any(f.code in {"duplicate-key", "config-broken"} for f in found):
        text = "its agent is open today: it takes commands from anyone who reaches its port (no passkey is set)"
        yield _warn(survey, "agent-open", text, "the upgrade closes it: v2 takes only Core's key")


def contents_of(configs: Sequence[ConfigFile]) -> list[tuple[str, dict[str, Any]]]:
    """Path and content of each config file."""
    return [(config.path, _data(config)) for config in configs]


def _say(survey: Survey, code: str, severity: Severity, text: str, hint: str = "") -> Finding:
    return Finding(code=code, severity=severity, subject=survey.server.name, text=text, hint=hint)


def _refuse(survey: Survey, code: str, text: str, hint: str) -> Finding:
    return _say(survey, code, Severity.REFUSE, text, hint)


def _warn(survey: Survey, code: str, text: str, hint: str = "") -> Finding:
    return _say(survey, code, Severity.WARN, text, hint)


def machine_findings(survey: Survey) -> Findings:
    """What any kind of agent needs of its machine."""
    machine = survey.machine
    if not releases.arch_of(one(machine, "machine")):
        yield _refuse(
            survey,
            "architecture",
            f"Komodo offers no v2 agent for {one(machine, 'machine') or 'this machine'}",
            f'name "{survey.server.name}" in leave_behind',
        )
    skew = abs(survey.clock_ahead)
    if skew > SKEW_WARNED:
        way = "ahead" if survey.clock_ahead > timedelta() else "behind"
        text = f"its clock is {skew.total_seconds():.0f} s {way} of the worker's"
        hint = "set its clock (chrony, systemd-timesyncd)"
        yield _say(survey, "clock-skew", Severity.REFUSE if skew > SKEW_REFUSED else Severity.WARN, text, hint)
    if held := lock_of_another(survey):
        fleet, _, change = held.partition(" ")
        text, hint = locked(fleet, change, survey.lock_use, survey.server.host.state_dir)
        yield _refuse(survey, "host-locked", text, hint)


def _tools(survey: Survey) -> Findings:
    machine, files = survey.machine, survey.files
    openssl3 = {"yes": True, "no": False}.get(one(machine, "openssl3"))
    if old := releases.runs_here(one(machine, "glibc"), openssl3):
        yield _refuse(survey, "system-too-old", f"{one(machine, 'os') or 'its system'}: {old}", releases.TOO_OLD)
    tools = set(machine.get("tool", ()))
    for tool in ("sha256sum", "systemctl", "journalctl"):
        if tool not in tools:
            yield _refuse(survey, "tool-missing", f"there is no {tool} on this host", f"install {tool}")
    size = int(one(files, "binary_bytes") or 0)
    need = {"free_binary": max(size, BINARY_BYTES), "free_state": max(size, BINARY_BYTES) + size}
    where = {"free_binary": survey.unit.binary, "free_state": survey.server.host.state_dir}
    for key, least in need.items():
        if one(files, key) and int(one(files, key)) < least:
            yield _refuse(
                survey,
                "no-space",
                f"{int(one(files, key)) // 2**20} MiB are free where {where[key]} lies, {least // 2**20} are needed",
                "free space, then run check again",
            )


def _no_unit(survey: Survey) -> Findings:
    yield from (units := list(user.elsewhere(survey)))
    if not units:
        text, hint = f"systemd knows no {survey.server.unit}", 'name the right unit in the fleet file: unit = "…"'
        yield _refuse(survey, "no-agent", text, hint)


def _unit(survey: Survey) -> Findings:
    found = survey.unit
    if found.refused:
        yield _refuse(
            survey,
            "unit-not-understood",
            f"{found.name} is not understood: {found.refused}",
            'say where the agent is, in this [[server]]: binary = "/…/periphery", config = "/…/periphery.config.toml"',
        )
    yield from user.unit_findings(survey)
    if not found.active:
        yield _refuse(
            survey,
            "agent-not-running",
            f"{found.name} does not run ({found.sub_state or 'stopped'})",
            f'start it, or name "{survey.server.name}" in leave_behind: a rollback could not be verified',
        )
    if found.enabled in {"disabled", "linked"}:
        yield _warn(
            survey,
            "unit-disabled",
            f"{found.name} is not enabled: after a restart of the machine the agent stays away",
            f"{'systemctl --user' if found.scope else 'systemctl'} enable {found.name}",
        )
    exe = one(survey.machine, "running_exe")
    real = one(survey.files, "binary_real") or found.binary
    if exe and found.binary and exe not in {real, found.binary}:
        yield _refuse(
            survey,
            "running-binary-differs",
            f"the running agent is {exe}, its unit names {found.binary}",
            'restart the agent, or name its binary in this [[server]]: binary = "/…/periphery"',
        )


def _binary(survey: Survey, version: str) -> Findings:
    binary = survey.unit.binary
    if not binary:
        return
    if not one(survey.files, "binary_sha256"):
        yield _refuse(
            survey, "binary-missing", f"there is no {binary}", "correct the unit, or binary in the fleet file"
        )
        return
    numbers = releases.version_of(version)
    if numbers is None:
        yield _refuse(
            survey,
            "not-the-agent",
            f"{binary} --version does not say a version of Periphery",
            'name the agent\'s binary in this [[server]]: binary = "/…/periphery"',
        )
        return
    target = releases.version_of(survey.target) or releases.FIRST_V2
    if numbers > target:
        yield _refuse(
            survey,
            "newer-than-target",
            f"its agent is {version}, newer than the target {survey.target}",
            f'set target = "{version}" or newer',
        )
    if numbers < releases.OLDEST_AGENT:
        oldest = ".".join(map(str, releases.OLDEST_AGENT))
        yield _warn(survey, "very-old-agent", f"its agent is {version}; versions before {oldest} were never tried")
    running = survey.log.version
    if survey.unit.active and running and running != version:
        yield _refuse(
            survey,
            "restart-pending",
            f"the running agent is {running}, its binary on disk {version}",
            f"systemctl restart {survey.unit.name}, see that it works, then run check again",
        )


def _environment(survey: Survey) -> Findings:
    settings = survey.settings
    for old, new in unit.alias_pairs(settings):
        yield _refuse(
            survey,
            "alias-pair",
            f"the agent's environment sets {old} and {new}, two spellings of one setting: v2 does not start with both",
            f"remove {old} from {survey.unit.name} (systemctl cat {survey.unit.name})",
        )
    for name in outbound.keys_in_environment(survey):
        if outbound.loaded(survey) is None:
            yield _refuse(
                survey,
                "key-in-environment",
                f"{name} is set in the agent's environment and wins over the config file",
                f"remove it (`systemctl cat {survey.unit.name}` shows where), {RESTART.format(survey.unit.name)}, "
                "then run check again: the upgrade pins Core's key in the config file",
            )


def _configs(survey: Survey, inspected: Mapping[str, ConfigFacts]) -> Findings:
    found = survey.unit
    if not found.refused and not found.config_paths:
        yield _refuse(
            survey,
            "no-config",
            f"{found.name} names no config file, so there is none that Core's key could be pinned in",
            f"give it an empty one (its environment stays and counts): {_empty_config(found)}",
        )
    for path in survey.files.get("missing", ()):
        yield _refuse(
            survey,
            "config-missing",
            f"{found.name} names the config {path}, which does not exist: Komodo leaves it out without a word",
            f'create it (at least one line: passkeys = ["…"]) or correct the path in {found.name}',
        )
    for path in survey.files.get("include", ()):
        yield _refuse(
            survey,
            "config-includes",
            f"{path} brings in further config files: this is not understood",
            f"name the files themselves with --config-path in {found.name}",
        )
    keyed = [path for path, facts in inspected.items() if facts.core_public_keys is not None]
    if len(keyed) > 1:
        yield _refuse(
            survey,
            "keys-in-several-files",
            f"core_public_keys is set in {' and '.join(keyed)}: Komodo joins the lists",
            "keep it in one of them",
        )


def _empty_config(found: unit.Unit) -> str:
    """To be typed on the host; v1 and v2 both know the variable (client/core/rs/src/entities/config/periphery.rs)."""
    folder = f"/etc/systemd/system/{found.name}.d"
    return (
        f"sudo sh -c 'mkdir -p /etc/komodo {folder} && touch {CONFIG} && printf "
        f'"[Service]\\nEnvironment=PERIPHERY_CONFIG_PATHS={CONFIG}\\n" > {folder}/config.conf && '
        f"{RESTART.format(found.name)}'"
    )


def config_findings(survey: Survey, config: ConfigFile, facts: ConfigFacts) -> Findings:
    """What is wrong with one config file."""
    if PurePosixPath(config.path).suffix != ".toml":
        yield _refuse(
            survey,
            "config-not-toml",
            f"{config.path} is no .toml file: only these are edited",
            "write it as TOML, and name that file in the unit",
        )
        return
    for key, first, second in facts.duplicates:
        yield _refuse(
            survey,
            "duplicate-key",
            f"{config.path} has {key} twice, in lines {first} and {second}: Komodo skips the whole file, "
            "the agent is open to any Core today",
            f"remove one of the two lines, then {survey.restart_command}",
        )
    if not facts.loads and not facts.duplicates:
        line = f" (line {facts.error_line})" if facts.error_line else ""
        what = f"is no valid TOML{line}: Komodo skips the whole file, the agent is open to any Core today"
        if facts.bare_variables:
            what = f"has a ${{…}} without quotes{line}: v1.19 fills it in before it reads the file, v2 skips all of it"
        yield _refuse(
            survey,
            "config-broken",
            f"{config.path} {what}",
            f"correct it, then {survey.restart_command}",
        )
    for table, number in facts.misplaced:
        # Among the secrets a list is a panic, a string becomes a secret; elsewhere it is a stray field.
        yield _say(
            survey,
            "key-misplaced",
            Severity.REFUSE if table == "secrets" else Severity.WARN,
            f"{config.path} has core_public_keys below [{table}] (line {number}), where the agent does not read it",
            "remove that line: the upgrade writes the key above the first table",
        )
    for pair in facts.alias_pairs:
        yield _refuse(
            survey,
            "alias-pair",
            f"{config.path} sets {' and '.join(pair)}, two spellings of one setting: v2 does not start with both",
            f"remove {pair[0]}",
        )
    if config.guide_backup and config.guide_backup != config.sha256:
        yield _say(
            survey,
            "older-backup",
            Severity.INFO,
            f"an older backup of {config.path} has the guide's name: it is kept, the new one gets a time stamp",
        )
    if bad := _bad_networks(_data(config).get("allowed_ips")):
        yield _warn(
            survey,
            "allowed-ips",
            f"{config.path}: allowed_ips holds {', '.join(bad)}, no address: Komodo leaves such entries out",
            "correct it; a list of nothing else lets everybody in",
        )


def misspelt_findings(survey: Survey) -> Findings:
    """A passkey under Core's form of the name: agents know the plural only, and ignore names that they do not know."""
    if "PERIPHERY_PASSKEY" in survey.settings:
        yield _warn(
            survey,
            "misspelt-setting",
            "the agent's environment sets PERIPHERY_PASSKEY, which the agent ignores: its name is PERIPHERY_PASSKEYS",
            "remove it; the upgrade pins Core's key, which replaces passkeys",
        )


def logging_findings(survey: Survey) -> Findings:
    """Whether the agent logs enough to prove anything."""
    level, stdio = "", ""
    for config in survey.configs:
        logging = _data(config).get("logging")
        if isinstance(logging, dict):
            level, stdio = str(logging.get("level", level)), str(logging.get("stdio", stdio))
    level = survey.settings.get("PERIPHERY_LOGGING_LEVEL", level).lower()
    stdio = survey.settings.get("PERIPHERY_LOGGING_STDIO", stdio).lower()
    if level in {"warn", "error", "off"} or stdio == "none":
        what = f'logging.level = "{level}"' if stdio != "none" else 'logging.stdio = "none"'
        yield _refuse(
            survey,
            "logs-too-little",
            f"with {what} the agent's journal proves neither version nor config",
            'set level = "info" and stdio = "standard" for the upgrade',
        )


def _method(survey: Survey) -> Findings:
    if survey.agent.method != "script":
        return
    if survey.unit.binary != SCRIPT_BINARY:
        yield _refuse(
            survey,
            "script-path",
            f"Komodo's setup script writes {SCRIPT_BINARY} only, this agent is {survey.unit.binary}",
            'method = "binary" in [agent]',
        )
    for tool in ("python3", "curl"):
        if tool not in survey.machine.get("tool", ()):
            yield _refuse(
                survey, "script-needs", f"Komodo's setup script needs {tool}", 'install it, or method = "binary"'
            )


def _data(config: ConfigFile) -> dict[str, Any]:
    try:
        return tomllib.loads((config.text or "").removeprefix("\ufeff"))
    except tomllib.TOMLDecodeError:
        return {}


def _bad_networks(values: Any) -> tuple[str, ...]:
    bad = []
    for value in values if isinstance(values, list) else []:
        try:
            ipaddress.ip_network(str(value), strict=False)
        except ValueError:
            bad.append(str(value))
    return tuple(bad)
