"""fleet.toml: read, validated by one model, and turned into the FleetSpec that workflows carry.

All errors are found in one pass. Each names the file, the line, the key, what is wrong, and what to write instead.
"""

from __future__ import annotations

import difflib
import json
import re
import tomllib
from collections.abc import Iterator
from datetime import timedelta
from itertools import islice
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails, PydanticCustomError

from model.errors import FileProblem, FleetFileError
from model.fleet.bounds import MOST_SERVERS, invisible, printable, read_text, too_deep
from model.fleet.example import COMMENTED_EXAMPLE
from model.fleet.positions import find_lines, repeated_keys
from model.fleet.spec import EVERY_OTHER, LABEL, FleetSpec, RolloutMode, Timing
from model.fleet.tables import FleetFile, ServerTable, to_spec
from model.fleet.values import REFERENCES, RELEASES, duration, duration_or_off

__all__ = ["COMMENTED_EXAMPLE", "RELEASES", "json_schema", "load", "parse"]

_Loc = tuple[str | int, ...]
_TABLES: dict[str, Any] = {name: field.annotation for name, field in FleetFile.model_fields.items()} | {
    "server": ServerTable
}
_SECRETS = {"password", "passphrase", "api_key", "api_secret", "sudo_password", "secret", "passkey", "token"}
_RENAMED_KEYS = {"dead_man": "auto_rollback", "offline_look": "offline_check", "clocks": "timing"}
_RENAMED_VALUES: dict[_Loc, str] = {
    ("rollout", "mode", "together"): "all-at-once",
    ("rollout", "on_failure", "go-on"): "continue",
}
_MOST_PROBLEMS = 100
"""Reported at once."""


def load(path: Path | str) -> FleetSpec:
    """The fleet of a file. Raises FleetFileError with every problem of the file at once."""
    file = Path(path).expanduser().absolute()
    return parse(read_text(file, path), file)


def parse(text: str, path: Path) -> FleetSpec:
    """The fleet of a text. `path` is the file that it was read from: relative paths start in its folder."""
    raw = _decode(text, path)
    found = [
        (loc, f"holds the invisible character {name}", "type the text again, on one line")
        for loc, name in islice(invisible(raw), _MOST_PROBLEMS)
    ]
    servers = raw.get("server")
    if isinstance(servers, list) and len(servers) > MOST_SERVERS:
        found.append((("server",), f"has {len(servers)} entries", f"write at most {MOST_SERVERS}"))
    file = None
    if not found:
        try:
            file = FleetFile.model_validate(raw)
        except ValidationError as error:
            found += [_explain(details) for details in error.errors(include_url=False)[:_MOST_PROBLEMS]]
        found += islice(_across(raw), _MOST_PROBLEMS)
    if found or file is None:
        lines = find_lines(text)
        raise _error(path, [_problem(loc, what, hint, raw, lines) for loc, what, hint in found])
    return to_spec(file, path)


def json_schema() -> dict[str, Any]:
    """JSON Schema of the file, for editors."""
    schema = FleetFile.model_json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


# --- errors -----------------------------------------------------------------------------------------------------------


def _decode(text: str, path: Path) -> dict[str, Any]:
    if deep := too_deep(text):
        hint = "compare the line with `komodo-upgrade init -`"
        raise _error(path, [FileProblem(line=deep, key="", what="nests too deeply", hint=hint)])
    try:
        return tomllib.loads(text)
    except ValueError as error:  # a TOMLDecodeError, or an integer with more digits than Python converts
        problems = [
            FileProblem(
                line=second,
                key=printable(key),
                what=f"is set twice, in line {first} and here",
                hint="keep one of them",
            )
            for key, first, second in repeated_keys(text)[:_MOST_PROBLEMS]
        ]
        if not problems:
            place = re.search(r"at line (\d+)", str(error))
            line = int(place.group(1)) if place else len(text.splitlines())
            what = printable(re.sub(r" \(at .*\)$", "", str(error)))
            problems = [FileProblem(line=line, key="", what=f"is not TOML: {what}", hint=_syntax_hint(text, line))]
        raise _error(path, problems) from None


def _syntax_hint(text: str, line: int) -> str:
    lines = text.splitlines()
    shown = lines[line - 1] if 0 < line <= len(lines) else ""
    if re.match(r"\s*[\w.-]+\s*=\s*[A-Za-z~/.][^\"']*$", shown) and not re.search(r"=\s*(true|false)\b", shown):
        return 'put the text in quotes: key = "value"'
    if re.match(r"\s*[\w.-]+\s*:", shown):
        return "write key = value, not key: value"
    return "compare the line with `komodo-upgrade init -`"


def _error(path: Path, problems: list[FileProblem]) -> FleetFileError:
    ordered = tuple(sorted(problems, key=lambda p: (p.line or 10**9, p.key)))
    count = "1 error" if len(ordered) == 1 else f"{len(ordered)} errors"
    shown = [f"{path}: {count}"]
    for problem in ordered:
        where = f"line {problem.line}: " if problem.line else ""
        subject = f"{problem.key} " if problem.key else ""
        shown += [f"  {where}{subject}{problem.what}", f"    → {problem.hint}"]
    return FleetFileError("\n".join(shown), problems=ordered, hint="correct the file, then repeat the command")


def _problem(loc: _Loc, what: str, hint: str, raw: dict[str, Any], lines: dict[_Loc, int]) -> FileProblem:
    line = 0
    for end in range(len(loc), 0, -1):
        if loc[:end] in lines:
            line = lines[loc[:end]]
            break
    return FileProblem(line=line, key=_name(loc, raw), what=what, hint=hint)


def _name(loc: _Loc, raw: dict[str, Any]) -> str:
    """`server[web-1].host`: a server is named rather than counted."""
    text = ""
    for index, part in enumerate(loc):
        if not isinstance(part, int):
            text += f".{part}" if text else part
            continue
        label: Any = part + 1
        if loc[:index] == ("server",):
            table = raw["server"][part]
            label = (isinstance(table, dict) and table.get("name")) or label
        text += f"[{label}]"
    return printable(text)


def _explain(details: ErrorDetails) -> tuple[_Loc, str, str]:
    """Pydantic's error as (place, what, hint). A value is repeated only where it cannot be a secret."""
    loc: _Loc = tuple(part for part in details["loc"] if part != "[key]")
    kind, context = details["type"], details.get("ctx", {})
    key = str(loc[-1]) if loc else ""
    if kind == "fleet":
        return loc, str(context["what"]), str(context["hint"])
    if kind == "missing":
        return loc, "is missing", _missing_hint(loc)
    if kind == "extra_forbidden":
        return loc, "is unknown here", _unknown_hint(loc)
    if kind in {"literal_error", "enum"}:
        allowed = str(context["expected"]).replace("'", '"').replace(" or ", ", ")
        renamed = _RENAMED_VALUES.get((*loc, str(details["input"])))
        hint = f'write {key} = "{renamed}", its new name' if renamed else f"write one of {allowed}"
        return loc, f'is "{printable(details["input"])}"', hint
    if kind in {"model_type", "dict_type", "model_attributes_type"}:
        return loc, "must be a table", f"write it as [{key}] with its keys below"
    if kind == "list_type":
        example = "[[server]]" if loc == ("server",) else f'{key} = ["…"]'
        return loc, "must be a list", f"write {example}"
    if kind in {"greater_than_equal", "less_than_equal"}:
        bound = context.get("ge", context.get("le"))
        word = "at least" if "ge" in context else "at most"
        return loc, f"is {printable(details['input'], 30)}", f"write {word} {bound}"
    types = {"string_type": ("text", f'{key} = "…"'), "int_type": ("a whole number", f"{key} = 1")}
    if kind in types:
        word, example = types[kind]
        return loc, f"must be {word}", f"write {example}"
    if kind == "string_too_long":
        return loc, f"has {len(str(details['input']))} characters", f"write at most {context['max_length']}"
    if kind == "string_too_short":
        return loc, "is empty", "give a value, or remove the line"
    return loc, str(details["msg"]), "compare with `komodo-upgrade schema`"


def _missing_hint(loc: _Loc) -> str:
    if len(loc) == 1:
        return f"add a [{loc[0]}] table; `komodo-upgrade init -` shows one"
    examples = {"name": 'name = "…"', "host": 'host = "10.0.0.11"', "target": f'target = "{RELEASES[-1]}"'}
    return f"add {examples.get(str(loc[-1]), f'{loc[-1]} = …')}"


def _unknown_hint(loc: _Loc) -> str:
    key = str(loc[-1])
    model = FleetFile if len(loc) == 1 else _TABLES.get(str(loc[0]))
    if loc[:2] == ("agent", "sha256"):
        return "the architectures are x86_64 and aarch64"
    known = list(model.model_fields) if isinstance(model, type) and issubclass(model, BaseModel) else []
    if key in _RENAMED_KEYS:
        return f"it has a new name: write {_RENAMED_KEYS[key]} instead"
    if len(loc) == 1 and key not in known and key in FleetFile.model_fields["fleet"].annotation.model_fields:  # type: ignore[union-attr]
        return f"move it below [fleet]: {key} = …"
    if key.lower() in _SECRETS:
        base = "passphrase" if key.lower() not in {"api_key", "api_secret"} else key.lower()
        base = "sudo = { password" if "password" in key.lower() else base
        end = " }" if base.startswith("sudo") else ""
        return f'secrets are references, never values: {base}_env = "NAME"{end} (or _file, _command)'
    if "host_key" in key or "strict" in key.lower():
        return "host keys are always checked; add them to a known_hosts file"
    elsewhere = [name for name, table in _TABLES.items() if name not in loc and key in _fields(table)]
    if elsewhere:
        bracket = "[[server]]" if elsewhere[0] == "server" else f"[{elsewhere[0]}]"
        return f"move it below {bracket}"
    close = difflib.get_close_matches(key, known, n=1, cutoff=0.6)
    if close:
        return f"did you mean {close[0]}?"
    return f"remove it; known here: {', '.join(known)}" if known else "remove it"


def _fields(table: Any) -> dict[str, Any]:
    return table.model_fields if isinstance(table, type) and issubclass(table, BaseModel) else {}


# --- checks over several keys -----------------------------------------------------------------------------------------


def _across(raw: dict[str, Any]) -> Iterator[tuple[_Loc, str, str]]:
    """Checks over several keys. They read the raw tables, so that they also run where a single key is wrong."""
    servers = raw.get("server")
    tables: list[tuple[_Loc, Any]] = [(("ssh",), raw.get("ssh")), (("core",), raw.get("core"))]
    named = list(enumerate(servers)) if isinstance(servers, list) else []
    tables += [(("server", index), table) for index, table in named]
    for loc, table in tables:
        if isinstance(table, dict):
            yield from _references(loc, table)
    yield from _duplicates([(i, t) for i, t in named if isinstance(t, dict)])
    yield from _too_short(raw, tables)
    yield from _left_behind(raw, {t.get("name") for _, t in named if isinstance(t, dict)})
    yield from _not_https(raw.get("agent"))
    yield from _order(raw.get("rollout"), [t for _, t in named if isinstance(t, dict)])
    yield from _all_at_once(raw.get("rollout"), raw.get("agent"), raw.get("core"))


def _not_https(agent: Any) -> Iterator[tuple[_Loc, str, str]]:
    """Downloads that anybody on the way could replace."""
    if not isinstance(agent, dict):
        return
    plain = [k for k in ("url", "script_url") if isinstance(agent.get(k), str) and not agent[k].startswith("https://")]
    if "script_url" in plain:
        yield ("agent", "script_url"), "is not https, and root runs this script", "write an https address"
    if "url" in plain and not agent.get("sha256"):
        hint = 'write an https address, or add sha256 = { x86_64 = "…" }'
        yield ("agent", "url"), "is not https and has no digest: the binary could be replaced on the way", hint


def _order(rollout: Any, servers: list[dict[str, Any]]) -> Iterator[tuple[_Loc, str, str]]:
    """An entry that matches no server is a typing error: those servers would come at another time."""
    order = rollout.get("order") if isinstance(rollout, dict) else None
    if not isinstance(order, list):
        return
    labels = [x for t in servers for x in (t["labels"] if isinstance(t.get("labels"), list) else ())]
    known = [EVERY_OTHER, *(t.get("name") for t in servers), *(f"{LABEL}{x}" for x in labels)]
    for index, entry in enumerate(order):
        if entry in order[:index]:
            yield ("rollout", "order"), f'has "{printable(entry)}" twice', "write it once"
        elif entry not in known:
            what = "label" if str(entry).startswith(LABEL) else "name"
            hint = f'write "label:NAME" with a label of a [[server]], a server\'s name, or "{EVERY_OTHER}"'
            yield ("rollout", "order"), f'names "{printable(entry)}", but no [[server]] has this {what}', hint


def _all_at_once(rollout: Any, agent: Any, core: Any) -> Iterator[tuple[_Loc, str, str]]:
    """Settings that cannot be combined with `mode = "all-at-once"`."""
    if not isinstance(rollout, dict) or rollout.get("mode") != RolloutMode.ALL_AT_ONCE:
        return
    fits = (("canary", 0), ("wave", "100%"), ("approve", "core-only"))
    idle = [key for key, value in fits if rollout.get(key, value) != value]
    idle += ["order"] if rollout.get("order") else []
    if idle:
        hint = f'remove {", ".join(idle)}; or write mode = "waves"'
        what = "has no effect with all-at-once: all servers are switched with Core, after gate core alone"
        yield ("rollout", idle[0]), what, hint
    if isinstance(agent, dict) and agent.get("method") == "script":
        what = "cannot be staged: Komodo's script downloads while the agent is stopped"
        yield ("agent", "method"), what, 'write method = "binary", or [rollout] mode = "waves"'
    if isinstance(core, dict) and core.get("keys_mount") == "volume":
        what = "is no folder on Core's host, so that no key pair could be written there in advance"
        yield ("core", "keys_mount"), what, 'write keys_mount = "bind", or [rollout] mode = "waves"'


def _references(loc: _Loc, table: dict[str, Any]) -> Iterator[tuple[_Loc, str, str]]:
    given: dict[str, list[str]] = {}
    for name in ("passphrase", "api_key", "api_secret"):
        keys = [f"{name}_{kind}" for kind in REFERENCES if f"{name}_{kind}" in table]
        given[name] = keys
        if len(keys) > 1:
            yield (*loc, keys[1]), f"is set in addition to {keys[0]}", f"keep one of {', '.join(keys)}"
    for one, other in (("api_key", "api_secret"), ("api_secret", "api_key")):
        if given[one] and not given[other]:
            yield (
                (*loc, given[one][0]),
                f"is set without {other}",
                f'add {other}_env = "KOMODO_{other.upper()}"',
            )


def _duplicates(servers: list[tuple[int, dict[str, Any]]]) -> Iterator[tuple[_Loc, str, str]]:
    names: dict[Any, int] = {}
    agents: dict[tuple[str, ...], Any] = {}
    for index, table in servers:
        name = table.get("name")
        if isinstance(name, str) and name in names:
            yield ("server", index, "name"), f'"{name}" is used twice', "name every Server of Komodo once"
        names.setdefault(name, index)
        keys = ("host", "port", "jump", "user", "unit")
        agent = tuple(str(table.get(key, "")) for key in keys)
        if table.get("host") and agent in agents and agents[agent] != name:
            hint = "two Servers on one agent cannot both be upgraded: give the second its own host or unit"
            yield ("server", index, "host"), f'is also the machine and unit of "{agents[agent]}"', hint
        agents.setdefault(agent, name)


def _too_short(raw: dict[str, Any], tables: list[tuple[_Loc, Any]]) -> Iterator[tuple[_Loc, str, str]]:
    """An automatic rollback timer that ends before Core can confirm a switch would undo healthy servers."""
    timing = raw.get("timing") if isinstance(raw.get("timing"), dict) else {}
    try:
        rollout = raw.get("rollout")
        all_at_once = isinstance(rollout, dict) and rollout.get("mode") == RolloutMode.ALL_AT_ONCE
        # All at once, the agents start before Core does.
        names = ("agent_ready", "core_sees", *(("core_ready",) if all_at_once else ()))
        given = [duration(timing[k]) if timing and k in timing else getattr(Timing(), k) for k in names]
        least = sum(given, timedelta())
        for loc, table in [(("rollout",), raw.get("rollout")), *tables]:
            if not isinstance(table, dict) or "auto_rollback" not in table:
                continue
            if timedelta() < duration_or_off(table["auto_rollback"]) < least:
                what = f'is "{table["auto_rollback"]}", which ends before Core can confirm a switch'
                sum_of = f"the sum of {', '.join(names)}"
                hint = f'write at least "{least.total_seconds():g}s", {sum_of}; "15m" is usual'
                yield (*loc, "auto_rollback"), what, hint
    except PydanticCustomError:
        return  # the key itself has its own error


def _left_behind(raw: dict[str, Any], names: set[Any]) -> Iterator[tuple[_Loc, str, str]]:
    rollout = raw.get("rollout")
    listed = rollout.get("leave_behind") if isinstance(rollout, dict) else None
    for name in listed if isinstance(listed, list) else []:
        if name in names:
            hint = "remove it from leave_behind, or remove its [[server]] table"
            yield ("rollout", "leave_behind"), f'names "{name}", which also has a [[server]] table', hint


def schema_text() -> str:
    """`json_schema()` as text."""
    return json.dumps(json_schema(), indent=2)
