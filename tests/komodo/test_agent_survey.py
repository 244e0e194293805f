"""Preflight's rules for one server, each alone."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from komodo.agent import unit
from komodo.agent.facts import server_facts
from komodo.agent.survey import ConfigFile, Survey, settings_of, unit_of
from komodo.logs import LoadedConfig, RunLog
from model.facts import Install, ServerFacts, Severity
from model.fleet.spec import AgentMethod, AgentRelease, Connection, HostSpec, Pin, ServerSpec

KEY = "MCowBQYDK2VuAyEAhixFldecUM47tVbkdqhhYn6H1pCbHFsT+Zgz0B2XdgY="
BINARY = "/usr/local/bin/periphery"
KEY_PATH = "/etc/komodo/keys/core.pub"
CONFIG = "/etc/komodo/periphery.config.toml"
TEXT = 'port = 8120\npasskeys = ["hunter2"]\n'
SHOW = [
    f"ExecStart={{ path=/bin/sh ; argv[]=/bin/sh -lc {BINARY} --config-path {CONFIG} ; ignore_errors=no ; pid=1 }}",
    "Environment=HOME=/root",
    "Id=periphery.service",
    "LoadState=loaded",
    "ActiveState=active",
    "SubState=running",
    "FragmentPath=/etc/systemd/system/periphery.service",
    "UnitFileState=enabled",
    "InvocationID=abc",
]
MACHINE = {
    "machine": ["x86_64"],
    "os": ["Debian GNU/Linux 12 (bookworm)"],
    "glibc": ["2.36"],
    "openssl3": ["yes"],
    "tool": ["systemctl", "journalctl", "sha256sum", "curl", "python3"],
    "show": SHOW,
}
FILES = {
    "free_binary": [str(10**10)],
    "free_state": [str(10**10)],
    "binary_real": [BINARY],
    "binary_sha256": ["a" * 64],
    "binary_bytes": ["30000000"],
    "binary_version": ["periphery 1.19.5 "],
}
SERVER = ServerSpec(name="web-1", host=HostSpec(name="web-1", address="10.0.0.1"))


def config(text: str, path: str = CONFIG, guide: str = "") -> ConfigFile:
    return ConfigFile(path, hashlib.sha256(text.encode()).hexdigest(), text, guide)


def survey(
    *,
    machine: dict[str, list[str]] | None = None,
    files: dict[str, list[str]] | None = None,
    text: str = TEXT,
    **changes: Any,
) -> Survey:
    said = MACHINE | (machine or {})
    server = changes.pop("server", SERVER)
    found = changes.pop("unit", None) or unit_of(said, server)
    made = Survey(
        server=server,
        target="2.3.2",
        fleet="prod",
        agent=AgentRelease(),
        machine=said,
        files=FILES | (files or {}),
        configs=(config(text),),
        unit=found,
        settings=settings_of(said, found),
        log=RunLog(version="1.19.5", config=LoadedConfig(passkeys=1), listening="https://[::]:8120"),
    )
    return replace(made, **changes)


def found(made: ServerFacts, severity: Severity = Severity.REFUSE) -> set[str]:
    return {f.code for f in made.findings if f.severity is severity}


def show(**changes: str) -> dict[str, list[str]]:
    lines = [line for line in SHOW if line.partition("=")[0] not in changes]
    return {"show": lines + [f"{k}={v}" for k, v in changes.items()]}


def test_an_ordinary_server_has_an_edit_and_nothing_to_say() -> None:
    facts = server_facts(survey())
    assert facts.findings == ()
    assert facts.install is Install.SYSTEMD
    assert (facts.version, facts.running_version, facts.binary) == ("1.19.5", "1.19.5", BINARY)
    edit, key_file = facts.edits
    assert (edit.path, edit.base_sha256) == (CONFIG, hashlib.sha256(TEXT.encode()).hexdigest())
    assert f"file:{KEY_PATH}" in edit.diff
    assert (key_file.path, key_file.base_sha256) == (KEY_PATH, "")
    assert "{core_public_key}" in key_file.diff
    inline = server_facts(survey(agent=AgentRelease(pin=Pin.INLINE)))
    assert ["{core_public_key}" in e.diff for e in inline.edits] == [True]
    assert "hunter2" not in repr(facts)
    assert any("ExecStart" in source for source in facts.sources)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"machine": {"machine": ["armv7l"]}}, "architecture"),
        ({"machine": {"glibc": ["2.31"]}}, "system-too-old"),
        ({"machine": {"openssl3": ["no"]}}, "system-too-old"),
        ({"machine": {"tool": ["systemctl", "journalctl"]}}, "tool-missing"),
        ({"clock_ahead": timedelta(minutes=-7)}, "clock-skew"),
        ({"lock": "staging 20261123T000000Z"}, "host-locked"),
        ({"files": {"free_binary": ["1000"]}}, "no-space"),
        ({"files": {"free_state": ["1000"]}}, "no-space"),
        ({"files": {"binary_sha256": []}}, "binary-missing"),
        ({"files": {"binary_version": ["hello "]}}, "not-the-agent"),
        ({"files": {"binary_version": ["periphery 2.4.0 "]}}, "newer-than-target"),
        ({"files": {"binary_version": ["periphery 2.3.2 "]}}, "restart-pending"),
        ({"files": {"missing": [CONFIG]}, "configs": ()}, "config-missing"),
        ({"files": {"include": ["/etc/komodo/.peripheryinclude"]}}, "config-includes"),
        ({"machine": {"running_exe": ["/opt/other/periphery"]}}, "running-binary-differs"),
        ({"machine": show(ActiveState="failed")}, "agent-not-running"),
        ({"machine": show(ExecStart="{ path=/x ; argv[]=/opt/start.sh ; ignore_errors=no }")}, "unit-not-understood"),
        ({"machine": show(ExecStart=f"{{ path=/x ; argv[]={BINARY} ; ignore_errors=no }}")}, "no-config"),
        ({"machine": show(Environment="PERIPHERY_CORE_PUBLIC_KEYS=x")}, "key-in-environment"),
        ({"machine": show(Environment="PERIPHERY_CORE_ADDRESS=https://k")}, "outbound-unused"),
        ({"machine": {"setting": ["/etc/default/p\tPERIPHERY_LOGGING_LEVEL\twarn"]}}, "logs-too-little"),
        ({"machine": show(Environment="PERIPHERY_CONFIG_PATH=/a PERIPHERY_CONFIG_PATHS=/a")}, "alias-pair"),
        ({"server": replace(SERVER, connection=Connection.OUTBOUND)}, "agents-url"),
        ({"text": 'passkeys = ["a"]\npasskeys = ["b"]\n'}, "duplicate-key"),
        ({"text": "passkeys = changeme\n"}, "config-broken"),
        ({"text": "passkeys = ['a']\nport = ${PORT}\n"}, "config-broken"),
        ({"text": '[secrets]\ncore_public_keys = ["x"]\n'}, "key-misplaced"),
        ({"text": 'core_addresses = ["https://k"]\n'}, "outbound-unused"),
        ({"text": '[logging]\nstdio = "none"\n'}, "logs-too-little"),
        ({"configs": (config(f'core_public_keys = ["{KEY}"]'), config(f'core_public_keys = ["{KEY}"]', "/b.toml"))},
         "keys-in-several-files"),
        ({"configs": (config("core_address = ''"), config("core_addresses = []", "/b.toml"))}, "alias-pair"),
        ({"configs": (config("port: 8120\n", "/etc/komodo/periphery.config.yaml"),)}, "config-not-toml"),
        (
            {"agent": AgentRelease(method=AgentMethod.SCRIPT), "server": replace(SERVER, binary="/opt/periphery")},
            "script-path",
        ),
        ({"agent": AgentRelease(method=AgentMethod.SCRIPT), "machine": {"tool": ["systemctl"]}}, "script-needs"),
    ],
)  # fmt: skip
def test_what_forbids_the_upgrade_names_the_way_out(changes: dict[str, Any], code: str) -> None:
    facts = server_facts(survey(**changes))
    assert code in found(facts), facts.findings
    assert all(f.hint for f in facts.findings if f.severity is Severity.REFUSE)
    assert not facts.current
    assert "hunter2" not in repr(facts)


def test_a_spelling_in_the_file_and_another_in_the_environment_is_said_and_stops_nothing() -> None:
    """The environment is read by itself and wins; v2 starts."""
    both = show(Environment="PERIPHERY_DISABLE_CONTAINER_EXEC=true")
    facts = server_facts(survey(machine=both, text="disable_container_terminals = false\n"))
    assert "alias-overridden" in found(facts, Severity.WARN)
    assert "alias-pair" not in found(facts)
    same = show(Environment="PERIPHERY_DISABLE_CONTAINER_TERMINALS=true")
    facts = server_facts(survey(machine=same, text="disable_container_terminals = false\n"))
    assert "alias-overridden" not in found(facts, Severity.WARN)


def test_an_agent_that_is_configured_by_its_environment_gets_a_command_to_type() -> None:
    facts = server_facts(survey(machine=show(ExecStart=f"{{ path=/x ; argv[]={BINARY} ; ignore_errors=no }}")))
    hint = next(f.hint for f in facts.findings if f.code == "no-config")
    assert "touch /etc/komodo/periphery.config.toml" in hint
    assert r"\nEnvironment=PERIPHERY_CONFIG_PATHS=/etc/komodo/periphery.config.toml\n" in hint
    assert "systemctl daemon-reload && systemctl restart periphery.service" in hint


def test_a_config_that_begins_with_a_byte_order_mark_is_read() -> None:
    assert "logs-too-little" in found(server_facts(survey(text='\ufeff[logging]\nstdio = "none"\n')))


@pytest.mark.parametrize(
    ("changes", "code", "severity"),
    [
        ({"clock_ahead": timedelta(seconds=45)}, "clock-skew", Severity.WARN),
        ({"machine": show(UnitFileState="disabled")}, "unit-disabled", Severity.WARN),
        ({"files": {"binary_version": ["periphery 1.14.2 "]}, "log": RunLog()}, "very-old-agent", Severity.WARN),
        ({"text": 'passkeys = ["a"]\nallowed_ips = ["core.example"]\n'}, "allowed-ips", Severity.WARN),
        ({"machine": show(Environment="PERIPHERY_PASSKEY=x")}, "misspelt-setting", Severity.WARN),
        ({"configs": (config(TEXT, guide="b" * 64),)}, "older-backup", Severity.INFO),
    ],
)
def test_what_an_approver_must_know(changes: dict[str, Any], code: str, severity: Severity) -> None:
    facts = server_facts(survey(**changes))
    assert code in found(facts, severity)
    assert not found(facts)


def test_a_passkey_under_the_right_name_is_not_misspelt() -> None:
    facts = server_facts(survey(machine=show(Environment="PERIPHERY_PASSKEYS=x PERIPHERY_PASSKEYS_FILE=/x")))
    assert "misspelt-setting" not in found(facts, Severity.WARN)


def test_an_agent_that_runs_without_its_config_is_open_whatever_the_file_says() -> None:
    log = RunLog(version="1.19.5", config=LoadedConfig(passkeys=0), unparsed=(CONFIG,))
    facts = server_facts(survey(log=log))
    assert facts.open_today
    assert "agent-open" in found(facts, Severity.WARN)


@pytest.mark.parametrize(
    ("text", "settings", "is_open"),
    [
        (TEXT, {}, False),
        ("passkeys = []\n", {}, True),
        ("port = 8120\n", {}, True),
        ("passkeys = []\n", {"PERIPHERY_PASSKEYS": "(set)"}, False),
        ("passkeys = changeme\n", {}, True),
    ],
)
def test_open_agents_without_a_journal(text: str, settings: dict[str, str], is_open: bool) -> None:
    assert server_facts(survey(text=text, settings=settings, log=RunLog())).open_today is is_open


def test_no_unit_but_a_users_unit_or_nothing() -> None:
    gone = {"show": ["Id=periphery.service", "LoadState=not-found", "FragmentPath="]}
    for more, code in (
        ({"user_unit": ["ann\t/home/ann/.config/systemd/user/periphery.service"]}, "user-unit"),
        ({}, "no-agent"),
    ):
        facts = server_facts(survey(machine={**gone, **more}, configs=(), files={}))
        assert found(facts) == {code}
        assert facts.install is Install.UNKNOWN


def test_the_fleet_file_overrides_what_is_not_understood() -> None:
    wrapped = show(ExecStart="{ path=/x ; argv[]=/opt/start.sh ; ignore_errors=no }")
    facts = server_facts(survey(machine=wrapped, server=replace(SERVER, binary=BINARY, config=CONFIG)))
    assert not found(facts)
    assert (facts.binary, facts.config_paths) == (BINARY, (CONFIG,))
    assert any("the fleet file" in source for source in facts.sources)


def v2(version: str, keys: tuple[str, ...] | None) -> dict[str, Any]:
    log = RunLog(version=version, config=LoadedConfig(core_public_keys=keys, passkeys=1))
    return {"files": {"binary_version": [f"periphery {version} "]}, "log": log}


def test_on_the_target_and_pinned_is_current() -> None:
    facts = server_facts(survey(text=f'core_public_keys = ["{KEY}"]\n' + TEXT, **v2("2.3.2", (KEY,))))
    assert facts.current
    assert facts.pinned_keys == (KEY,)
    assert [e.path for e in facts.edits] == [CONFIG, KEY_PATH], "for the case that it is not Core's key"


def test_on_the_target_without_a_key_is_not_current() -> None:
    facts = server_facts(survey(**v2("2.3.2", None)))
    assert not facts.current
    assert [e.path for e in facts.edits] == [CONFIG, KEY_PATH]


@pytest.mark.parametrize(
    ("root", "path"),
    [("/srv/komodo/", "/srv/komodo/keys/core.pub"), ("data", ""), ("/srv/a,b", ""), ("/srv/$HOME", "")],
)
def test_where_cores_key_is_kept(root: str, path: str) -> None:
    """Without a folder that can be written as it is read, the key itself is pinned."""
    facts = server_facts(survey(text=f'root_directory = "{root}"\n{TEXT}'))
    assert [e.path for e in facts.edits] == [CONFIG, *([path] if path else [])]


def test_one_key_in_the_config_of_a_v2_agent_can_be_replaced() -> None:
    def repinned(*keys: str, version: str = "2.0.0", pin: Pin = Pin.FILE) -> bool:
        listed = ", ".join(f'"{key}"' for key in keys)
        made = survey(text=f"core_public_keys = [{listed}]\n", agent=AgentRelease(pin=pin), **v2(version, keys))
        return bool(server_facts(made).repin)

    assert repinned(KEY)
    assert not repinned(KEY, pin=Pin.INLINE)
    assert not repinned(KEY, version="2.3.2"), "nothing is to be done on this server"
    assert not repinned(KEY, KEY.replace("A", "B", 1)[:-2] + "A=")


def test_from_v2_to_a_younger_v2_a_config_that_cannot_be_edited_is_no_refusal_yet() -> None:
    """It may hold Core's key already; that is decided when the plan is made."""
    text = f'core_public_keys = ["{KEY}"]\n[secrets]\ncore_public_keys = ["{KEY}"]\n'
    facts = server_facts(survey(text=text, **v2("2.0.0", (KEY,))))
    assert (facts.current, facts.edits, facts.pinned_keys) == (False, (), (KEY,))
    assert "edit-refused" not in {f.code for f in facts.findings}


def test_of_several_configs_the_one_with_the_passkeys_is_edited() -> None:
    both = (config(TEXT, "/etc/komodo/a.toml"), config("port = 8121\n", "/etc/komodo/b.toml"))
    assert [e.path for e in server_facts(survey(configs=both)).edits] == ["/etc/komodo/a.toml", KEY_PATH]


def test_settings_of_the_running_process_have_the_last_word() -> None:
    said = MACHINE | show(Environment="PERIPHERY_PORT=1") | {"setting": ["process\tPERIPHERY_PORT\t2"]}
    assert settings_of(said, unit.parse_unit("\n".join(said["show"])))["PERIPHERY_PORT"] == "2"


def test_a_file_that_only_v1_reads_is_not_called_open() -> None:
    facts = server_facts(survey(text="passkeys = ['a']\nport = ${PORT}\n"))
    assert [f.text for f in facts.findings if f.code == "config-broken"] == [
        f"{CONFIG} has a ${{…}} without quotes (line 2): v1.19 fills it in before it reads the file, v2 skips all of it"
    ]


def test_files_that_cannot_be_replaced() -> None:
    foreign = {"foreign": [f"1000\t{BINARY}", f"1000\t{CONFIG}", "1000\t/etc/komodo/other.config.toml"]}
    made = server_facts(survey(files=foreign))
    assert [f.text.split()[0] for f in made.findings if f.code == "file-owner"] == [BINARY, CONFIG]
    script = server_facts(survey(files=foreign, agent=AgentRelease(method=AgentMethod.SCRIPT)))
    assert [f.text.split()[0] for f in script.findings if f.code == "file-owner"] == [CONFIG]
