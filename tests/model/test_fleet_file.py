"""The fleet file: a valid one is read; each mistake is reported with line, key and hint, all at once."""

from __future__ import annotations

import json
import re
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.errors import FleetFileError
from model.fleet.file import COMMENTED_EXAMPLE, RELEASES, json_schema, load, parse
from model.fleet.positions import find_lines
from model.fleet.spec import FleetSpec, SecretRef, Sudo, Timing
from tests.model.broken_fleet_files import BROKEN, CORE, GOOD, HEAD, SERVER


def read(text: str, folder: Path = Path("/srv/komodo")) -> FleetSpec:
    return parse(text, folder / "fleet.toml")


def refused(text: str) -> FleetFileError:
    with pytest.raises(FleetFileError) as caught:
        read(text)
    return caught.value


# --- valid files ------------------------------------------------------------------------------------------------------


def test_the_example_that_init_writes_is_a_valid_file_and_every_commented_key_is_known() -> None:
    assert read(COMMENTED_EXAMPLE).name == "prod"
    uncommented = re.sub(r"(?m)^# (?=[a-z_]+ = )", "", COMMENTED_EXAMPLE)
    uncommented = uncommented.replace("…64 hexadecimal digits…", "a" * 64).replace("# [[server]]", "[[server]]")
    assert uncommented.count("\n# [") == 0
    fleet = read(uncommented)
    assert [s.name for s in fleet.servers] == ["web-1", "db-1"]
    assert fleet.core.api_key == SecretRef(env="KOMODO_API_KEY")


def test_the_automatic_rollback_timer_is_set_for_all_servers_or_for_one() -> None:
    two = SERVER + 'auto_rollback = "off"\n' + SERVER.replace("web-1", "web-2").replace("10.0.0.11", "10.0.0.12")
    fleet = read(HEAD + CORE + '[rollout]\nauto_rollback = "15m"\n' + two)
    assert [s.auto_rollback for s in fleet.servers] == [timedelta(), timedelta(minutes=15)]
    short = read(GOOD + 'auto_rollback = "20s"\n[timing]\nagent_ready = "5s"\ncore_sees = "15s"\n')
    assert short.servers[0].auto_rollback == timedelta(seconds=20)
    assert read(GOOD).servers[0].auto_rollback == timedelta()


def test_defaults_of_ssh_reach_every_host_and_each_host_may_override() -> None:
    text = (
        HEAD
        + '[ssh]\nuser = "ops"\nport = 2222\nkey_files = "keys/id"\njump = "bastion"\n'
        + 'sudo = { password_env = "SUDO" }\n'
        + 'passphrase_file = "~/pass"\nstate_dir = "/opt/ku"\nconnect_timeout = "5s"\n'
        + CORE
        + 'sudo = "none"\nuser = "root"\njump = "none"\n'
        + SERVER
        + 'key_files = ["/k/one", "two"]\npassphrase_env = "P"\nssh_config = "none"\n'
    )
    fleet = read(text)
    core, web = fleet.core.host, fleet.server("web-1").host
    assert (core.user, core.port, core.sudo, core.jump) == ("root", 2222, Sudo.NONE, "")
    assert core.sudo_password is None
    assert core.key_files == ("/srv/komodo/keys/id",)
    assert core.passphrase == SecretRef(file=str(Path.home() / "pass"))
    assert (web.user, web.jump, web.sudo) == ("ops", "bastion", Sudo.PASSWORD)
    assert web.sudo_password == SecretRef(env="SUDO")
    assert web.key_files == ("/k/one", "/srv/komodo/two")
    assert web.passphrase == SecretRef(env="P")
    assert web.ssh_config == "none"
    assert (web.state_dir, web.connect_timeout) == ("/opt/ku", timedelta(seconds=5))


def test_everything_has_a_default_that_is_the_models_own() -> None:
    fleet = read(GOOD)
    assert fleet.timing == Timing()
    assert fleet.server("web-1").unit == "periphery.service"
    assert fleet.rollout.wave == "1"
    assert fleet.source == "/srv/komodo/fleet.toml"


@pytest.mark.parametrize(
    ("written", "exact"),
    [("2", "2.3.3"), ("2.3", "2.3.3"), ("2.1", "2.1.2"), ("2.0.0", "2.0.0"), ("v2.3.1", "2.3.1"), ("2.9.7", "2.9.7")],
)
def test_a_target_becomes_exact(written: str, exact: str) -> None:
    assert read(GOOD.replace("2.3.2", written)).target == exact


@pytest.mark.parametrize(
    ("written", "seconds"),
    [("90s", 90), ("4h", 14400), ("3d", 259200), ("1h30m", 5400), ("500ms", 0.5), ("0.2s", 0.2), ("1h 30m", 5400)],
)
def test_durations(written: str, seconds: float) -> None:
    fleet = read(GOOD + f'[timing]\npoll = "{written}"\n')
    assert fleet.timing.poll == timedelta(seconds=seconds)


@given(st.integers(1, 86400 * 300))
def test_a_duration_written_in_any_units_is_the_same(seconds: int) -> None:
    days, rest = divmod(seconds, 86400)
    hours, rest = divmod(rest, 3600)
    text = "".join(f"{n}{unit}" for n, unit in ((days, "d"), (hours, "h"), (rest, "s")) if n)
    assert read(GOOD + f'[timing]\npoll = "{text}"\n').timing.poll == timedelta(seconds=seconds)


def test_load_reads_a_file_and_resolves_from_its_folder(tmp_path: Path) -> None:
    file = tmp_path / "fleet.toml"
    file.write_text(HEAD + '[ssh]\nknown_hosts = "hosts"\n' + CORE + SERVER)
    fleet = load(file)
    assert fleet.core.host.known_hosts == str(tmp_path / "hosts")
    assert fleet.source == str(file)


def test_a_fleet_without_servers_is_only_core() -> None:
    assert read(HEAD + CORE).servers == ()


def test_no_secret_can_be_written_so_none_is_carried() -> None:
    fleet = read(GOOD + 'sudo = { password_command = "pass show sudo" }\n')
    assert "pass show sudo" in str(fleet.server("web-1").host.sudo_password)


# --- mistakes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "text", "line", "key", "what", "hint"), BROKEN, ids=[row[0] for row in BROKEN])
def test_each_error_names_line_key_and_hint(name: str, text: str, line: int, key: str, what: str, hint: str) -> None:
    error = refused(text)
    found = [(p.line, p.key) for p in error.problems]
    assert found == [(line, key)]
    problem = error.problems[0]
    assert what in problem.what or what in problem.key
    assert hint in problem.hint
    assert f"{key} {problem.what}" in str(error)
    assert "/srv/komodo/fleet.toml" in str(error)


SYNTAX = [
    ("no quotes", HEAD + "[core]\nhost = core\n", 5, "not TOML", "in quotes"),
    ("YAML", HEAD + "[core]\nhost: core\n", 5, "not TOML", "key = value"),
    ("open bracket", HEAD + "[core\n", 4, "not TOML", "init"),
    ("open string", HEAD + '[core]\nhost = "a\n', 5, "not TOML", ""),
    ("twice", HEAD + CORE + 'host = "b"\n', 6, "set twice, in line 5 and here", "keep one"),
    ("table twice", HEAD + CORE + SERVER + CORE, 9, "set twice, in line 4 and here", "keep one"),
    ("twice in a server", GOOD + 'name = "x"\n', 9, "set twice, in line 7 and here", "keep one"),
]


@pytest.mark.parametrize(("name", "text", "line", "what", "hint"), SYNTAX, ids=[row[0] for row in SYNTAX])
def test_what_is_no_toml_names_its_line(name: str, text: str, line: int, what: str, hint: str) -> None:
    problem = refused(text).problems[0]
    assert problem.line == line
    assert what in problem.what
    assert hint in problem.hint


def test_all_errors_come_at_once_in_the_order_of_the_file() -> None:
    text = (
        '[fleet]\nname = "a b"\ntarget = "latest"\n[core]\nhost = "u@h"\n[rollout]\nwave = 0\n'
        '[[server]]\nname = "a"\nhost = "x"\n[[server]]\nname = "a"\nhost = "y"\nport = "z"\n'
    )
    lines = [p.line for p in refused(text).problems]
    assert lines == [2, 3, 5, 7, 12, 14]


@pytest.mark.parametrize("secret", ["hunter2", "K_secret_K", "K_abc-123"])
def test_no_message_repeats_what_may_be_a_secret(secret: str) -> None:
    seen = 0
    for _, text, *_ in BROKEN:
        if secret in text:
            seen += 1
            assert secret not in str(refused(text))
    assert seen


def test_files_that_cannot_be_read_say_so(tmp_path: Path) -> None:
    with pytest.raises(FleetFileError, match="no such file") as caught:
        load(tmp_path / "none.toml")
    assert "komodo-upgrade init" in caught.value.hint
    binary = tmp_path / "binary.toml"
    binary.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(FleetFileError, match="not UTF-8"):
        load(binary)
    with pytest.raises(FleetFileError, match="directory"):
        load(tmp_path)


# --- lines, schema ----------------------------------------------------------------------------------------------------


def test_lines_are_found_behind_values_of_several_lines() -> None:
    text = (
        'a = """\n[not.a.table]\nb = 1\n"""\n[t]\nlist = [\n  1,  # two\n  2,\n]\nx = { y = 1 }\n'
        '"quoted key" = 1\nd.e = 2\n[[s]]\nn = 1\n[[s]]\nn = 2\n[s.sub]\nz = 1\n'
    )
    lines = find_lines(text)
    expected = {
        ("a",): 1,
        ("t",): 5,
        ("t", "list"): 6,
        ("t", "x"): 10,
        ("t", "x", "y"): 10,
        ("t", "quoted key"): 11,
        ("t", "d", "e"): 12,
        ("s", 0, "n"): 14,
        ("s", 1): 15,
        ("s", 1, "n"): 16,
        ("s", 1, "sub", "z"): 18,
    }
    assert {path: lines.get(path) for path in expected} == expected
    assert ("b",) not in lines


@given(st.text(max_size=200))
def test_any_text_is_a_fleet_or_one_clear_error(text: str) -> None:
    with pytest.raises(FleetFileError) as caught:
        read(text)
    assert caught.value.problems


def test_the_schema_knows_every_key_of_the_example_and_nothing_more_is_allowed() -> None:
    schema = json_schema()
    assert schema["$schema"].startswith("https://json-schema.org/")
    definitions = schema["$defs"]
    assert all(d.get("additionalProperties") is False for d in definitions.values() if d.get("type") == "object")
    assert set(definitions["TimingTable"]["properties"]) == set(Timing.__dataclass_fields__)
    assert definitions["Ssh"]["properties"]["sudo"]
    json.dumps(schema)


def test_releases_are_in_order() -> None:
    assert list(RELEASES) == sorted(RELEASES, key=lambda r: [int(n) for n in r.split(".")])
