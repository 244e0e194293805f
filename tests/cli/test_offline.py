"""Commands that need neither Temporal nor a host."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest

from cli import options, target
from cli.app import EXIT_CODES, SECTIONS
from model.fleet.file import load
from tests.cli.conftest import Call

COMMANDS = [name for section in SECTIONS.values() for name in section]
HEAVY = ("temporalio", "asyncssh", "motor", "httpx2", "pydantic", "rich")


def test_help_names_every_command_and_every_exit_code(offline: Call) -> None:
    shown = offline("--help").stdout
    for name in COMMANDS:
        assert f"  {name} " in shown
    for code in (0, 1, 2, 3, 4, 5, 6, 7, 10, 11, 124, 130):
        assert f" {code}  " in shown
    assert EXIT_CODES.count("\n") > 10


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_with_an_example_and_json_output(name: str, offline: Call) -> None:
    shown = offline(name, "--help").stdout
    assert re.search(rf"\n  Examples?:\n(.+\n)*?    komodo-upgrade {name}", shown)
    assert "--output" in shown or "-o" in shown


def test_commands_import_only_what_they_need() -> None:
    """One process, in this order: `schema` needs pydantic, the others nothing heavy."""
    light, heavy = [["--help"], ["start", "--help"], ["completion", "bash"], ["frob"]], set(HEAVY)
    code = f"""
import sys
from cli.app import cli
for arguments in [*{light!r}, ["schema"]]:
    try: cli.main(arguments, prog_name="komodo-upgrade")
    except SystemExit: pass
    print(arguments[0], *sorted({heavy!r} & set(sys.modules)), file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    lines = [line for line in done.stderr.splitlines() if line.split(" ")[0] in {a[0] for a in [*light, ["schema"]]}]
    assert lines == ["--help", "start", "completion", "frob", "schema pydantic"]
    assert json.loads(done.stdout[done.stdout.rindex('{\n  "$schema"') :])["title"] == "FleetFile"


def test_init_writes_a_file_that_loads_and_never_overwrites(offline: Call, tmp_path: Path) -> None:
    offline("init")
    assert load(tmp_path / "fleet.toml").name == "prod"
    (tmp_path / "fleet.toml").write_text("mine")
    refused = offline("init", code=2)
    assert "fleet.toml exists" in refused.stderr
    assert (tmp_path / "fleet.toml").read_text() == "mine"
    offline("init", "--force")
    assert load(tmp_path / "fleet.toml").name == "prod"


def test_init_prints_with_a_dash(offline: Call, tmp_path: Path) -> None:
    assert offline("init", "-").stdout.startswith("# A Komodo installation")
    assert not (tmp_path / "fleet.toml").exists()


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts_name_the_command(shell: str, offline: Call) -> None:
    assert "_KOMODO_UPGRADE_COMPLETE" in offline("completion", shell).stdout


def test_version_as_json(offline: Call) -> None:
    facts = json.loads(offline("version", "-o", "json").stdout)
    assert set(facts) == {"release", "code", "python"}


def test_errors_go_to_stderr_and_as_an_object_to_stdout_when_json_is_wanted(offline: Call, tmp_path: Path) -> None:
    (tmp_path / "fleet.toml").write_text('[fleet]\nname = "x"\n[core]\nhost = "u@h"\n')
    text = offline("check", code=2)
    assert text.stdout == ""
    assert "line 4: core.host" in text.stderr
    error = json.loads(offline("check", "-o", "json", code=2).stdout)["error"]
    assert error["type"] == "FleetFileError"
    assert [p["line"] for p in error["problems"]] == [1, 4]


def test_without_a_fleet_file_the_hint_is_init(offline: Call) -> None:
    assert "komodo-upgrade init fleet.toml" in offline("start", code=2).stderr


@pytest.mark.parametrize("name", ["status", "watch", "approve", "pause", "rollback", "report"])
def test_without_earlier_upgrades_no_service_is_started(name: str, offline: Call, tmp_path: Path) -> None:
    shown = offline(name, "prod", code=2).stderr
    assert "no upgrade was ever started on this machine" in shown
    assert not (tmp_path / "state").exists()


def test_list_is_empty_without_earlier_upgrades(offline: Call) -> None:
    assert json.loads(offline("list", "-o", "json").stdout) == []


def test_down_when_no_service_runs(offline: Call) -> None:
    assert offline("down").stdout == "not running\n"


def test_an_unknown_command_and_a_bad_duration_are_usage_errors(offline: Call) -> None:
    offline("frob", code=2)
    assert "write 90s, 10m or 1h30m" in offline("status", "x", "--timeout", "10", code=2).stderr


def test_demo_lists_the_faults(offline: Call) -> None:
    shown = offline("demo", "--fail", "list").stdout
    assert "disk-full" in shown
    assert "crash-loop" in shown


def test_no_color_is_honoured(offline: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    @click.command("probe")
    @options.output_option
    def probe() -> None:
        seen.append(click.get_current_context().color)

    monkeypatch.setattr("cli.commands.meta.version_command", probe)
    offline("version")
    monkeypatch.setenv("NO_COLOR", "1")
    offline("version")
    assert seen == [None, False]


# --- which fleet is meant ---------------------------------------------------------------------------------------------


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    text = '[fleet]\nname = "prod"\ntarget = "2"\n[core]\nhost = "c"\n[[server]]\nname = "web-1"\nhost = "h"\n'
    (tmp_path / "fleet.toml").write_text(text)
    (tmp_path / "other.toml").write_text(text.replace('"prod"', '"other"'))
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "name", "servers"),
    [
        ((), "prod", ()),
        (("prod",), "prod", ()),
        (("web-1",), "prod", ("web-1",)),
        (("prod", "web-1"), "prod", ("web-1",)),
        (("other.toml",), "other", ()),
        (("other.toml", "web-1"), "other", ("web-1",)),
        (("./other.toml",), "other", ()),
        (("staging",), "staging", ()),
        (("staging", "web-9"), "staging", ("web-9",)),
    ],
)
def test_arguments_with_servers(here: Path, arguments: tuple[str, ...], name: str, servers: tuple[str, ...]) -> None:
    found = target.resolve(arguments, servers=True)
    assert (found.name, found.servers) == (name, servers)


def test_limit_takes_names_and_patterns_and_covers_the_others_by_name(tmp_path: Path) -> None:
    names = ["web-1", "db-1", "web-2", "odd[1]"]
    text = '[fleet]\nname = "prod"\ntarget = "2"\n[core]\nhost = "c"\n'
    text += "".join(f'[[server]]\nname = "{name}"\nhost = "h{n}"\n' for n, name in enumerate(names))
    (tmp_path / "fleet.toml").write_text(text)
    fleet = load(tmp_path / "fleet.toml")

    def chosen(*patterns: str) -> list[str]:
        part = target.limited(fleet, patterns)
        assert sorted((*part.in_run, *part.not_in_run)) == sorted(names)
        assert part.servers == fleet.servers, "a rollback takes all"
        return list(part.in_run)

    assert chosen() == names
    assert chosen("web-*") == ["web-1", "web-2"]
    assert chosen("web-2", "db-1", "web-*") == ["web-1", "db-1", "web-2"]
    assert chosen("odd[1]") == ["odd[1]"], "a name fits itself"
    with pytest.raises(click.UsageError, match=r"--limit WEB-\* fits no server of prod: web-1, db-1, web-2, odd\[1\]"):
        chosen("web-1", "WEB-*")


def test_a_server_that_is_none_and_an_argument_too_many_are_usage_errors(here: Path) -> None:
    with pytest.raises(click.UsageError, match="servers of prod: web-1"):
        target.resolve(("prod", "web-2"), servers=True)
    with pytest.raises(click.UsageError):
        target.resolve(("prod", "web-1"))
    with pytest.raises(click.UsageError, match="too many"):
        target.resolve(("staging", "web-1"))


def test_the_environment_names_the_fleet_file(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(target.ENV, str(here / "other.toml"))
    assert target.resolve(()).name == "other"
    assert target.load_file(None).name == "other"


def test_a_bare_name_works_without_any_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = target.resolve(("prod",))
    assert (found.name, found.fleet, found.argument) == ("prod", None, "prod")


def test_the_argument_in_a_hint_means_the_same_fleet(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert target.resolve(()).argument == ""
    assert target.resolve(("other.toml",)).argument == "other.toml"
    monkeypatch.chdir("/")
    assert target.resolve((str(here / "other.toml"),)).argument == os.fspath(here / "other.toml").lstrip("/")
