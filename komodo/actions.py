"""Action scripts that call terminals the way v1's client wants it, found and rewritten.

In v2 `komodo.execute_terminal` still exists but takes `{target, terminal, command, init}`: a v1 call is accepted by the
editor, stays green in the list and fails when it is run. `execute_server_terminal` has v1's shape;
`execute_terminal_stream` has no such twin. Sources: v1.19.5 and v2.3.2 `client/core/ts/src/lib.ts`.

Scripts are TypeScript; only calls whose argument is an object literal are examined, everything else is left alone.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_CALL = re.compile(r"\b(execute_terminal_stream|execute_terminal)\s*\(\s*(?=\{)")
_CREATE = re.compile(r"\.\s*write\s*\(\s*([\"'`])CreateTerminal\1\s*,\s*(?=\{)")
_GONE = re.compile(
    r"\b(execute_(?:container|deployment|stack)_exec_stream|connect_(?:container_|deployment_|stack_)?exec)\s*\("
)
_GONE_READ = re.compile(r"[\"'`](GetPeripheryVersion)[\"'`]")
_LIST = re.compile(r"\.\s*read\s*\(\s*([\"'`])(List\w+)\1\s*(,\s*(?=\{)|\))")
_PAGED = (
    "ListActions ListAlerters ListAllContainers ListAllDockerContainers ListBuilders ListBuilds ListDeployments "
    "ListFullActions ListFullAlerters ListFullBuilders ListFullBuilds ListFullDeployments ListFullProcedures "
    "ListFullRepos ListFullResourceSyncs ListFullServers ListFullStacks ListProcedures ListRepos ListResourceSyncs "
    "ListSchedules ListServers ListStacks ListTerminals"
)
_PAGES = frozenset(_PAGED.split())
"""Reads with `limit` since v2.3.0 (client/core/rs/src/api/read); `ListBuildVersions` had one before."""
_AGENT_URL = re.compile(r"[\"'`]https?://[^\"'`\s]*:8120\b")
_REQUEST = re.compile(r"\bfetch\s*\(\s*(?=[\"'`])")
_GONE_CALL = re.compile(r"\bkomodo\s*\.\s*(auth|user)\s*\(\s*[\"'`]")


@dataclass(frozen=True, slots=True)
class OldCall:
    """One call that v2 does not understand."""

    line: int
    call: str
    hint: str


def old_calls(text: str) -> tuple[OldCall, ...]:
    """What in this script fails on v2, in the order of its lines."""
    code = _blanked(text)
    found: list[OldCall] = []
    for match, keys in _object_calls(code, _CALL):
        if "server" in keys and "target" not in keys:
            name = match.group(1)
            better = (
                "execute_server_terminal with the same argument"
                if name == "execute_terminal"
                else 'target: {type: "Server", params: {server}} instead of server'
            )
            found.append(OldCall(_line(code, match.start()), name, f"use {better}"))
    for match, keys in _object_calls(text, _CREATE):
        if code[match.start()] == text[match.start()] and "server" in keys and "target" not in keys:
            hint = "drop it, and give execute_server_terminal init: {command, recreate}"
            found.append(OldCall(_line(text, match.start()), "CreateTerminal", hint))
    found += [
        OldCall(_line(code, m.start()), m.group(1), "gone in v2; use the call without _stream")
        for m in _GONE.finditer(code)
    ]
    found += [
        OldCall(_line(text, m.start()), call.format(m.group(1)), hint)
        for pattern, call, hint in (
            (_GONE_READ, "GetPeripheryVersion", "use GetPeripheryInformation"),
            (_GONE_CALL, "komodo.{}(…)", "this form is gone in v2"),
        )
        for m in pattern.finditer(text)
        if code[m.start()] == text[m.start()]
    ]
    return tuple(sorted(found, key=lambda c: c.line))


def agent_requests(text: str) -> tuple[OldCall, ...]:
    """Requests to an agent's own port, whose API is gone in v2. Only `fetch` of a literal address is examined."""
    code = _blanked(text)
    return tuple(
        OldCall(_line(text, match.start()), "fetch", "ask Core instead")
        for match in _REQUEST.finditer(code)
        if _AGENT_URL.match(text, match.end())
    )


def short_lists(text: str) -> tuple[OldCall, ...]:
    """Lists without `limit`, which hold 50 items from v2.3.0 on. Only literal calls are examined."""
    code, blank = _blanked(text), _blanked(_blanked(text))
    found = []
    for match in _LIST.finditer(text):
        if match.group(2) not in _PAGES or code[match.start()] != text[match.start()]:
            continue
        keys = _keys(blank, match.end()) if match.group(3) != ")" else {}
        if keys is not None and "limit" not in keys and "..." not in blank[match.end() :].partition("}")[0]:
            found.append(OldCall(_line(text, match.start()), match.group(2), ""))
    return tuple(found)


def rewritten(text: str) -> str:
    """The script with terminal calls in v2's form where that is safe; the same text when there is nothing to do.

    Only `execute_terminal` and `execute_terminal_stream` are rewritten. A `CreateTerminal` before them keeps failing
    and is reported by `old_calls`: its options belong into `init`, which a person decides.
    """
    code = _blanked(text)
    edits: list[tuple[int, int, str]] = []
    for match, keys in _object_calls(code, _CALL):
        if "server" not in keys or "target" in keys:
            continue
        if match.group(1) == "execute_terminal":
            edits.append((match.start(1), match.end(1), "execute_server_terminal"))
            continue
        start, end, value = keys["server"]
        params = "server" if value is None else f"server: {text[value[0] : value[1]].strip()}"
        edits.append((start, end, f'target: {{ type: "Server", params: {{ {params} }} }}'))
    for start, end, new in sorted(edits, reverse=True):
        text = text[:start] + new + text[end:]
    return text


_Keys = dict[str, tuple[int, int, "tuple[int, int] | None"]]


def _object_calls(code: str, pattern: re.Pattern[str]) -> list[tuple[re.Match[str], _Keys]]:
    """Matches whose argument is an object literal, with its top-level keys."""
    found = []
    blank = _blanked(code)
    for match in pattern.finditer(code):
        keys = _keys(blank, match.end())
        if keys is not None:
            found.append((match, keys))
    return found


def _keys(code: str, start: int) -> _Keys | None:
    """Top-level keys of the object literal at `start`: where each property lies, and its value (None: shorthand)."""
    depth = 0
    keys: _Keys = {}
    begin = start + 1
    for place in range(start, len(code)):
        char = code[place]
        if char in "{[(":
            depth += 1
        elif char in "}])":
            depth -= 1
        if (depth == 0 and char == "}") or (depth == 1 and char == ","):
            _property(code, begin, place, keys)
            begin = place + 1
        if depth == 0:
            return keys
    return None


def _property(code: str, begin: int, end: int, keys: _Keys) -> None:
    match = re.match(r"\s*([\"'`]?)([A-Za-z_$][\w$]*)\1\s*(:?)", code[begin:end])
    if match:
        first = begin + len(match.group()) - len(match.group().lstrip())
        last = begin + len(code[begin:end].rstrip())
        keys[match.group(2)] = (first, last, (begin + match.end(), last) if match.group(3) else None)


def _blanked(text: str) -> str:
    """The same length with comments and the insides of strings blanked, so that nothing in them is taken for code."""
    out = list(text)
    place = 0
    while place < len(text):
        two = text[place : place + 2]
        if two == "//":
            end = text.find("\n", place)
            end = len(text) if end < 0 else end
            _blank(out, place, end)
        elif two == "/*":
            end = text.find("*/", place + 2)
            end = len(text) if end < 0 else end + 2
            _blank(out, place, end)
        elif text[place] in "\"'`":
            end = _string_end(text, place)
            if not _is_key(text, place, end):
                _blank(out, place + 1, end - 1)
        else:
            end = place + 1
        place = end
    return "".join(out)


def _is_key(text: str, place: int, end: int) -> bool:
    """A quoted property name such as `"server": …` stays readable."""
    return bool(re.match(r"\s*:", text[end:])) and bool(re.search(r"[{,]\s*$", text[:place]))


def _string_end(text: str, place: int) -> int:
    quote = text[place]
    here = place + 1
    while here < len(text):
        if text[here] == "\\":
            here += 2
            continue
        if text[here] == quote:
            return here + 1
        if text[here] == "\n" and quote != "`":
            return here
        here += 1
    return len(text)


def _blank(out: list[str], start: int, end: int) -> None:
    for place in range(start, end):
        if out[place] != "\n":
            out[place] = " "


def _line(text: str, place: int) -> int:
    return text.count("\n", 0, place) + 1
