"""What `discover` writes: complete, valid, the same at each run, and around a person's text."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from model.errors import FleetFileError
from model.fleet import merge as merging
from model.fleet.bounds import MOST_SERVERS
from model.fleet.discovery import AgentOnHost, CoreServers, ListedServer
from model.fleet.file import parse
from model.fleet.merge import Change, Merged, merged
from model.fleet.spec import AgentInstall, Connection

FILE = Path("/srv/fleet.toml")
START = '# mine\n[fleet]\nname = "prod"\ntarget = "2.3.2"\n\n[core]\nhost = "core.example.net"\n'


def listed(name: str, host: str = "", *, address: str = "", enabled: bool = True) -> ListedServer:
    host = host or f"{name}.example.net"
    return ListedServer(name=name, address=address or f"https://{host}:8120", host=host, enabled=enabled)


def outbound(name: str) -> ListedServer:
    return ListedServer(name=name, address="", host="", enabled=True)


def core(*servers: ListedServer, **more: Any) -> CoreServers:
    return CoreServers(servers=servers, listed=True, **more)


def found(name: str, install: AgentInstall = AgentInstall.SYSTEMD, **more: Any) -> AgentOnHost:
    return AgentOnHost(name=name, reached=True, install=install, **more)


def merge(text: str, known: CoreServers, *agents: AgentOnHost) -> Merged:
    """The result, which a second run does not change."""
    by_name = {agent.name: agent for agent in agents}
    result = merged(text, FILE, known, by_name)
    assert merged(result.text, FILE, known, by_name).text == result.text
    parse(result.text, FILE)
    return result


def changes(result: Merged) -> dict[str, Change]:
    return {entry.name: entry.change for entry in result.entries}


def test_a_new_file_has_every_enabled_server() -> None:
    known = core(listed("db-1"), listed("off", enabled=False), listed("web-1"), listed("Local"), agent_server="Local")
    result = merge(START, known, found("db-1"), found("web-1", AgentInstall.CONTAINER))
    fleet = parse(result.text, FILE)
    assert result.text.startswith(START)
    assert [(s.name, s.host.address, s.install, s.connection) for s in fleet.servers] == [
        ("db-1", "db-1.example.net", AgentInstall.SYSTEMD, Connection.INBOUND),
        ("web-1", "web-1.example.net", AgentInstall.CONTAINER, Connection.INBOUND),
    ]
    assert changes(result) == {
        "Local": Change.WITH_CORE,
        "db-1": Change.ADDED,
        "off": Change.DISABLED,
        "web-1": Change.ADDED,
    }
    assert result.text.endswith(
        "# discover: upgraded with Core, because its agent is part of Core's project: Local\n"
        "# discover: disabled in Komodo, and not in this file: off\n"
    )


def test_a_host_that_is_not_reached_has_a_note_until_it_is() -> None:
    known = core(listed("web-1"))
    lost = AgentOnHost(name="web-1", problem="its host key is unknown", hint="compare with\n`ssh-keyscan web-1`")
    first = merge(START, known, lost)
    assert (
        "[[server]]\n"
        "# discover: not surveyed: its host key is unknown\n"
        "# discover: next: compare with `ssh-keyscan web-1`\n"
        'name = "web-1"\n'
    ) in first.text
    again = merged(first.text, FILE, known, {})
    assert again.to_survey == ("web-1",), "it is surveyed again"
    second = merge(first.text, known, found("web-1"))
    assert "# discover:" not in second.text
    assert parse(second.text, FILE).servers[0].install is AgentInstall.SYSTEMD
    assert merged(second.text, FILE, known, {}).to_survey == (), "a server without a note is not"


def test_an_agent_of_a_user_is_reached_as_that_user() -> None:
    result = merge(START, core(listed("web-1")), found("web-1", AgentInstall.SYSTEMD_USER, user="komodo"))
    [server] = parse(result.text, FILE).servers
    assert (server.install, server.host.user, server.host.sudo) == ("systemd-user", "komodo", "none")
    hostile = merge(START, core(listed("web-1")), found("web-1", AgentInstall.SYSTEMD_USER, user="-oProxyCommand=x"))
    assert parse(hostile.text, FILE).servers[0].host.user == ""


EDITED = (
    START
    + """
[[server]] # the first one
name = 'web-1'   # as Komodo has it
host = "10.0.0.11" # not its address in Komodo
user = "root"


[[server]]
name = "old"
host = "10.0.0.12"
[timing]
poll = "2s"
# the end

"""
)


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_every_line_of_a_person_stays(end: str) -> None:
    text = EDITED.replace("\n", end)
    known = core(listed("db-1"), listed("web-1"))
    result = merge(text, known, found("db-1"))
    lines = result.text.split(end)
    assert [line for line in lines if line in EDITED.split("\n")][: EDITED.count("\n") - 2] == EDITED.split("\n")[:-3]
    assert "\n" not in result.text.replace(end, "")
    assert changes(result) == {"db-1": Change.ADDED, "old": Change.GONE, "web-1": Change.KEPT}
    gone = lines[lines.index('name = "old"') - 3 : lines.index('name = "old"')]
    assert gone[0] == "[[server]]"
    assert gone[1] == "# discover: Komodo has no Server of this name any more"
    assert result.to_survey == ("db-1",)
    # When it is back, the text is as it was before.
    back = merged(result.text, FILE, core(listed("old"), listed("web-1"), listed("db-1")), {})
    assert back.text.startswith(text.rstrip("\r\n"))
    assert "# discover:" not in back.text


def test_nothing_to_change_changes_no_byte() -> None:
    known = core(listed("old"), listed("web-1"))
    assert merge(EDITED, known).text == EDITED


def test_the_file_decides_what_is_left_behind() -> None:
    text = START + '[rollout]\nleave_behind = ["web-1"]\n'
    result = merge(text, core(listed("web-1")))
    assert result.text == text
    assert changes(result) == {"web-1": Change.LEFT_BEHIND}


def test_servers_in_the_file_that_need_none_get_a_note() -> None:
    tables = "".join(f'[[server]]\nname = "{name}"\nhost = "{name}"\n' for name in ("Local", "off"))
    result = merge(START + tables, core(listed("Local"), listed("off", enabled=False), agent_server="Local"))
    assert changes(result) == {"Local": Change.WITH_CORE, "off": Change.DISABLED}
    assert (
        '# discover: it is disabled in Komodo\n# discover: next: enable it there, or remove this table\nname = "off"'
        in (result.text)
    )


def test_a_server_that_connects_by_itself_is_written_for_a_person_to_complete() -> None:
    result = merge(START, core(outbound("edge-1")))
    assert parse(result.text, FILE).servers == ()
    block = '# discover: [[server]]\n# discover: name = "edge-1"\n# discover: host = ""\n'
    assert f'{block}# discover: connection = "outbound"\n' in result.text
    completed = result.text.replace(block, '[[server]]\nname = "edge-1"\nhost = "10.0.0.9"\n')
    completed = completed.replace("# discover: connection", "connection")
    after = merge(completed, core(outbound("edge-1")))
    assert "# discover:" not in after.text
    assert parse(after.text, FILE).servers[0].connection is Connection.OUTBOUND


def test_two_servers_on_one_host_are_not_written_twice() -> None:
    result = merge(START, core(listed("a", "h"), listed("b", "h")))
    assert [s.name for s in parse(result.text, FILE).servers] == ["a"]
    assert "b is not in this file: its address leads to the host of a, h" in result.text


def test_a_renamed_server_is_recognized_by_its_host() -> None:
    text = START + '[[server]]\nname = "old"\nhost = "h"\n'
    result = merge(text, core(listed("new", "h")))
    assert '# discover: next: name = "new" in the table of old' in result.text


def test_a_core_that_is_not_reached_has_a_note() -> None:
    result = merge(START, core(problem="no SSH connection", hint="`ssh core`"))
    assert "[core]\n# discover: not surveyed: no SSH connection\n# discover: next: `ssh core`\nhost = " in result.text


@pytest.mark.parametrize(
    "name",
    ["a\x1b[31mb", "a\nb", 'x"\n[[server]]\nname = "y', "a\u202eb", "\ud800", " a", "a" * 5000, "", "\x7f", "\u2028"],
)
def test_names_that_no_fleet_file_can_hold_are_only_mentioned(name: str) -> None:
    result = merge(START, core(listed(name, "h"), listed("web-1")))
    assert [s.name for s in parse(result.text, FILE).servers] == ["web-1"]
    assert {e.name: e.change for e in result.entries}[name] is Change.LEFT_OUT
    assert result.text.isprintable() is False
    assert all(line.isprintable() for line in result.text.split("\n"))
    assert max(len(line) for line in result.text.split("\n")) < 1100


@pytest.mark.parametrize("host", ["", "a b", "-oProxyCommand=x", "x;y", "h\n", "u@h", "[::1]", "\u202e", "$(id)"])
def test_hosts_that_are_none_are_never_written(host: str) -> None:
    known = ListedServer(name="web-1", address=f"https://{host}:8120", host=host, enabled=True)
    result = merge(START, core(known))
    assert parse(result.text, FILE).servers == ()
    assert changes(result) == {"web-1": Change.LEFT_OUT}
    assert '# discover: host = ""' in result.text


def test_ipv6_addresses_are_hosts() -> None:
    assert parse(merge(START, core(listed("six", "fd00::5"))).text, FILE).servers[0].host.address == "fd00::5"


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(st.text(max_size=30), st.text(max_size=30)), max_size=4), st.text(max_size=60), st.booleans())
def test_whatever_core_and_hosts_say_the_file_is_valid(
    servers: list[tuple[str, str]], words: str, enabled: bool
) -> None:
    """Only [[server]] tables with the given names are added, and a second run changes nothing."""
    known = core(*(ListedServer(name=n, address=words, host=h, enabled=enabled) for n, h in servers), problem=words)
    agents = [AgentOnHost(name=n, problem=words, hint=words, user=words) for n, _ in servers]
    result = merge(EDITED, known, *agents)
    raw = tomllib.loads(result.text)
    assert raw.keys() == {"fleet", "core", "server", "timing"}
    assert {t["name"] for t in raw["server"]} <= {"web-1", "old", *(n for n, _ in servers)}


def test_lines_inside_of_a_text_that_look_like_a_note_stay() -> None:
    text = START + '[notify]\ncommand = """\n# discover: x\necho"""\n'
    with pytest.raises(FleetFileError):
        parse(text, FILE)
    text = START + "[agent]\n# discover: removed\nurl = 'https://x/{version}'\n"
    assert "removed" not in merge(text, core(listed("web-1"))).text, "notes of the command are written again"
    assert merging._without_notes('a = """\n# discover: x\n"""\n') == 'a = """\n# discover: x\n"""\n'


def test_a_file_that_cannot_be_extended_is_refused() -> None:
    text = 'server = [{ name = "a", host = "h" }]\n' + START
    with pytest.raises(FleetFileError, match=r"write each server as a \[\[server\]\] table"):
        merged(text, FILE, core(listed("a"), listed("web-1")), {})


def test_a_file_that_would_be_too_large_is_refused() -> None:
    known = core(*(listed(f"s-{n}") for n in range(MOST_SERVERS)))
    agents = {s.name: AgentOnHost(name=s.name, problem="x" * 500) for s in known.servers}
    with pytest.raises(FleetFileError, match="larger than 512 KiB"):
        merged(START, FILE, known, agents)
