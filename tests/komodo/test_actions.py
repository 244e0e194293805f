"""Scripts that fail on v2 are found, rewritten once and never twice; scripts already written for v2 are left alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from komodo.actions import old_calls, rewritten

V1 = "const r = await komodo.execute_terminal({ server: 'web-1', terminal: 't', command: 'uptime' }, { onLine });\n"


def test_the_captured_action_is_found_and_rewritten(captures: Path) -> None:
    entries = json.loads((captures / "core-v2.3.2-agent-v2.3.2.json").read_text())
    action = next(e["answer"][0] for e in entries if e["request"] == "POST /read/ListFullActions")
    text = action["config"]["file_contents"]
    (call,) = old_calls(text)
    assert (call.line, call.call) == (1, "execute_terminal")
    new = rewritten(text)
    assert new == text.replace("execute_terminal(", "execute_server_terminal(")
    assert old_calls(new) == ()
    assert rewritten(new) == new


@pytest.mark.parametrize(
    "text",
    [
        "await komodo.execute_terminal({ target: { type: 'Server', params: { server: 'a' } }, command: 'x' }, {});",
        "await komodo.execute_server_terminal({ server: 'a', terminal: 't', command: 'x' }, {});",
        "// await komodo.execute_terminal({ server: 'a' }, {});",
        "/* execute_terminal({ server: 1 }) */ const s = \"execute_terminal({ server: 'a' })\";",
        "await komodo.execute_terminal(options, {});",
        "await komodo.execute_terminal({ terminal: 't', command: `echo server: x` }, {});",
        "await komodo.execute_terminal({ ...rest, command: { server: 1 } }, {});",
        "const a = { server: 'a' }; await my.execute_terminal_streams({ server: 1 });",
        "",
    ],
)
def test_left_alone(text: str) -> None:
    assert old_calls(text) == ()
    assert rewritten(text) == text


def test_stream_needs_a_target() -> None:
    text = (
        "const s = await komodo.execute_terminal_stream({\n"
        "  server: cfg.server, // which\n  terminal: 't',\n  command: 'a, b',\n});\n"
    )
    (call,) = old_calls(text)
    assert call.call == "execute_terminal_stream"
    new = rewritten(text)
    assert 'target: { type: "Server", params: { server: cfg.server } }, // which' in new
    assert "execute_terminal_stream" in new
    assert "execute_server_terminal_stream" not in new
    assert rewritten(new) == new


def test_shorthand_and_quoted_keys() -> None:
    new = rewritten("k.execute_terminal_stream({ server, terminal })")
    assert new == 'k.execute_terminal_stream({ target: { type: "Server", params: { server } }, terminal })'
    assert old_calls('k.execute_terminal({ "server": "a", command: "x" })')
    assert rewritten('k.execute_terminal({ "server": "a" })') == 'k.execute_server_terminal({ "server": "a" })'


def test_create_terminal_and_what_is_gone() -> None:
    text = (
        'await komodo.write("CreateTerminal", { server: "a", name: "t", command: "bash", recreate: "Always" });\n'
        + V1
        + 'await komodo.read("GetPeripheryVersion", { server: "a" });\n'
        + "komodo.execute_stack_exec_stream({});\n"
        + 'komodo.auth("GetLoginOptions", {});\n'
    )
    assert [(c.line, c.call) for c in old_calls(text)] == [
        (1, "CreateTerminal"),
        (2, "execute_terminal"),
        (3, "GetPeripheryVersion"),
        (4, "execute_stack_exec_stream"),
        (5, "komodo.auth(…)"),
    ]
    assert old_calls(rewritten(text))[0].call == "CreateTerminal"
    assert not old_calls('komodo.write("CreateTerminal", { target: { type: "Server", params: { server } }, name })')
