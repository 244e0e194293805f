"""periphery.config.toml: what it says, and Core's key put where the agent reads it. Every other byte stays.

A file that does not load is skipped without an error, and the agent then accepts any Core: a key written twice opens
the host it was meant to close (v1.19.5:lib/config/src/load.rs; moghtech/lib crates/config/src/load.rs for v2).
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from komodo.edited import Edited
from komodo.public_key import pinnable, understood
from komodo.recognise import refuse_unreadable
from komodo.splice import Splice, apply, lines_after, newline_of, untouched_equal
from komodo.toml_text import Statement, duplicates, statements
from model.errors import EditRefused

NAME = "core_public_keys"
_NAMES = (NAME, "core_public_key")
_COMMENTED = re.compile(r"[ \t]*#[ \t]*core_public_keys?[ \t]*=")
ALIASES = (
    ("core_public_keys", "core_public_key"),
    ("core_addresses", "core_address"),
    ("disable_container_terminals", "disable_container_exec"),
    ("git_providers", "git_provider"),
    ("docker_registries", "docker_registry", "image_registries", "image_registry"),
)
"""Names of one setting: v2 stops when it gets two of them (v2.3.2:client/core/rs/src/entities/config/periphery.rs)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigFacts:
    """What a config file says to the agent. Its repr holds no secret."""

    loads: bool
    error_line: int = 0
    """Where it stops being TOML; 0: nowhere, or at its end."""
    error: str = ""
    """The parser's words, without any of the file's own text."""
    bare_variables: bool = False
    """It is TOML only once `${VAR}` is filled in: v1.19 does that before it reads the file, v2 afterwards."""
    duplicates: tuple[tuple[str, int, int], ...] = ()
    """(name, first line, second line)"""
    passkeys: tuple[str, ...] | None = field(default=None, repr=False)
    """None: not set. (): set and empty, which is open in v1 and lets nobody in by passkey in v2."""
    core_public_keys: tuple[str, ...] | None = None
    """None: not set. (): set and empty, which lets any Core in."""
    misplaced: tuple[tuple[str, int], ...] = ()
    """`core_public_keys` inside a table, where the agent does not look: (table, line)."""
    outbound: bool = False
    """The agent connects to Core, not Core to the agent."""
    ssl_enabled: bool = True
    port: int = 8120
    alias_pairs: tuple[tuple[str, str], ...] = ()
    """Two names of one setting, both there: v2 does not start."""
    root_directory: str = "/etc/komodo"

    @property
    def open_in_v1(self) -> bool:
        """A v1 agent with this file (and no passkeys in its environment) accepts any Core."""
        return not self.loads or not self.passkeys

    @property
    def pinned(self) -> tuple[str, ...]:
        """Keys in Komodo's one-line form; what cannot be read as a key here (`file:…`) as it stands."""
        return tuple(understood(entry) or entry for entry in self.core_public_keys or () if entry)

    @property
    def has_passkeys(self) -> bool:
        """Some passkey is set."""
        return bool(self.passkeys)


def inspect(text: str) -> ConfigFacts:
    """Read a config file. Never raises: what is wrong is in the facts."""
    twice = duplicates(text)
    misplaced = tuple(
        (".".join(s.table), s.line) for s in statements(text) if s.kind == "pair" and s.table and s.path[-1:] == (NAME,)
    )
    try:
        data = _parse(text)
    except tomllib.TOMLDecodeError as error:
        line = re.search(r"at line (\d+)", str(error))
        return ConfigFacts(
            loads=False,
            error_line=int(line[1]) if line else 0,
            error=_plain_error(error),
            bare_variables=has_bare_variables(text),
            duplicates=twice,
            misplaced=misplaced,
        )
    return ConfigFacts(
        loads=True,
        duplicates=twice,
        misplaced=misplaced,
        passkeys=_strings(data.get("passkeys")),
        core_public_keys=_strings(next((data[n] for n in _NAMES if n in data), None)),
        outbound=bool(_strings(data.get("core_addresses")) or _strings(data.get("core_address"))),
        ssl_enabled=data.get("ssl_enabled") is not False,
        port=data["port"] if isinstance(data.get("port"), int) else 8120,
        alias_pairs=_alias_pairs(data),
        root_directory=str(data.get("root_directory") or "/etc/komodo"),
    )


def _alias_pairs(data: dict[str, Any]) -> tuple[tuple[str, str], ...]:
    present = [[n for n in names if n in data] for names in ALIASES]
    return tuple((names[0], names[1]) for names in present if len(names) > 1)


def _parse(text: str) -> dict[str, Any]:
    return tomllib.loads(text.removeprefix("\ufeff"))


def has_bare_variables(text: str) -> bool:
    """Whether a text is no TOML, but is with a number or a string for each `${VAR}`."""
    for value in ("", "1", '""'):
        try:
            _parse(text if not value else re.sub(r"\$\{\w+\}", value, text))
        except tomllib.TOMLDecodeError:
            continue
        return bool(value)
    return False


def _plain_error(error: tomllib.TOMLDecodeError) -> str:
    # the parser quotes names only in "Cannot declare (...) twice"; anything in quotes is cut, it could be a value
    return re.sub(r"'[^']*'|\"[^\"]*\"", "…", str(error))


def _strings(value: object) -> tuple[str, ...] | None:
    """A list, or a string that holds one, as the agent splits it (deserializers/string_list.rs, parsers.rs)."""
    if value is None:
        return None
    if isinstance(value, list):
        return tuple(str(v) for v in value)
    lines = (line.split("#")[0] for line in str(value).split("\n"))
    return tuple(entry.strip() for line in lines for entry in line.split(",") if entry.strip())


def edit_periphery_config(text: str, *, key: str) -> Edited:
    """Pin Core's key (or a plan's placeholder) in `core_public_keys`, at the top of the file.

    Raises KeyRejected for a key that is none, EditRefused with the lines to paste where the file cannot be edited.
    """
    key = pinnable(key)
    line = f'{NAME} = ["{key}"]'
    snippet = f"# before the first [table]:\n{line}"
    refuse_unreadable(text, snippet=snippet)
    facts = inspect(text)
    _refuse(text, facts, line, snippet)
    found = list(statements(text))
    present = [s for s in found if s.kind == "pair" and not s.table and s.path in tuple((n,) for n in _NAMES)]
    notes = tuple(_notes(facts))
    data = _parse(text)
    if present:
        splice, entries, reason = _replacement(present[0], data[present[0].path[0]], key)
        if splice is None:
            return Edited(text=text, notes=notes)
        name = present[0].path[0]
    else:
        splice, entries, reason, name = _insertion(text, found, line), [key], _first_reason(facts), NAME
    result = apply(text, [splice])
    _prove(text, result, splice, {**data, name: entries}, snippet)
    return Edited(text=result, reasons=(reason,), notes=notes)


def _refuse(text: str, facts: ConfigFacts, line: str, snippet: str) -> None:
    for name, first, second in facts.duplicates:
        raise EditRefused(
            f"{name} is there twice, on lines {first} and {second}: the file does not load, "
            "so the agent ignores all of it and accepts any Core today",
            snippet=f"# keep one of line {first} and line {second}\n{line}",
            cure="remove one of the two lines, restart the agent, then try again",
        )
    if not facts.loads:
        raise _not_loading(text, facts, line, snippet)
    for first_name, second_name in facts.alias_pairs:
        raise EditRefused(
            f"{first_name} and {second_name} are two names of one setting, and v2 does not start with both",
            snippet=f"# remove {second_name}, keep {first_name}\n{line}",
            cure="remove one of them, then try again",
        )
    for table, number in facts.misplaced:
        if table == "secrets" and not isinstance(_parse(text)["secrets"].get(NAME, ""), str):
            raise EditRefused(
                f"line {number}: {NAME} stands inside [secrets], where only strings may be: the agent does not start",
                snippet=f"# remove line {number}; before the first [table]:\n{line}",
                cure=f"remove line {number}, then try again",
            )


def _not_loading(text: str, facts: ConfigFacts, line: str, snippet: str) -> EditRefused:
    where = f"line {facts.error_line}" if facts.error_line else "its end"
    open_today = "the agent ignores the whole file, without an error, and accepts any Core today"
    for s in statements(text):
        if s.kind == "pair" and s.path == ("passkeys",) and not _is_value(s.raw) and not facts.bare_variables:
            return EditRefused(
                f"line {s.line}: passkeys is not TOML (its value needs quotes and brackets): {open_today}",
                snippet=f'passkeys = ["<the passkey of line {s.line}, in quotes>"]\n{line}',
                cure=f"correct line {s.line} and restart the agent: it is open until then",
            )
    if facts.bare_variables:
        return EditRefused(
            f"{where} holds a ${{…}} without quotes: v1.19 fills it in before it reads the file, v2 skips all of it",
            snippet=snippet,
            cure="write the value itself there",
        )
    what = "this is JSON or YAML, not TOML" if text.lstrip().startswith(("{", "---")) else facts.error
    return EditRefused(
        f"this file is not TOML at {where} ({what}): {open_today}",
        snippet=snippet,
        cure="mend it and restart the agent: it is open until then",
    )


def _is_value(raw: str) -> bool:
    try:
        tomllib.loads(f"x = {raw}")
    except tomllib.TOMLDecodeError:
        return False
    return True


def _notes(facts: ConfigFacts) -> list[str]:
    notes = [
        f"line {number}: {NAME} stands inside [{table}], where the agent does not read it"
        for table, number in facts.misplaced
    ]
    if facts.passkeys == () and not facts.core_public_keys:
        notes.append("passkeys is empty: the v1 agent accepts any Core today")
    files = [e for e in facts.core_public_keys or () if e.startswith("file:")]
    return notes + [f"{file} has to exist on the agent's machine, or the agent does not start" for file in files]


def _first_reason(facts: ConfigFacts) -> str:
    more = "; with it the agent ignores its passkeys" if facts.has_passkeys else ""
    return f"{NAME} added: the agent accepts only the Core with this key{more}"


def _replacement(present: Statement, value: object, key: str) -> tuple[Splice | None, Any, str]:
    """The splice, the new value as data, the reason."""
    name = present.path[0]
    entries = list(_strings(value) or ())
    kept = [e for e in entries if e == key or understood(e) or e.startswith("file:") or "$" in e]
    there = any(key in (e, understood(e)) for e in entries)
    if there and kept == entries:
        return None, value, ""
    whole = Splice(start=present.value_start, end=present.value_end, text="")
    dropped = len(entries) - len([e for e in kept if e])
    if not kept:
        was = "it was empty, which lets any Core in" if not [e for e in entries if e] else "what it held is no key"
        text = f'["{key}"]'
        return Splice(start=whole.start, end=whole.end, text=text), [key], f"{name} set to Core's key: {was}"
    if dropped or not isinstance(value, list):
        new = kept if there else [*kept, key]
        said = f"; {dropped} that v2 would not start with removed" if dropped else ""
        if isinstance(value, str) and present.raw[:3] not in ('"""', "'''") and "#" not in value:
            joined = ", ".join(new)
            return Splice(start=whole.start, end=whole.end, text=f'"{joined}"'), joined, _added(name, kept, said)
        listed = ", ".join(f'"{e}"' if "\n" not in e else f'"""{e}"""' for e in new)
        return Splice(start=whole.start, end=whole.end, text=f"[{listed}]"), new, _added(name, kept, said)
    first = present.value_start + 1
    blank = "" if present.raw[1:2] in ("\n", "\r", " ", "\t") else " "
    return Splice(start=first, end=first, text=f'"{key}",{blank}'), [key, *entries], _added(name, kept, "")


def _added(name: str, kept: Sequence[str], said: str) -> str:
    return f"{name}: Core's key added to the {len(kept)} that are there, which would keep this Core out{said}"


def _insertion(text: str, found: Sequence[Statement], line: str) -> Splice:
    """Behind `passkeys`, else behind the template's commented line, else behind the last setting of the top."""
    header = next((s.start for s in found if s.kind in ("table", "array")), len(text))
    top = [s for s in found if s.start < header]
    behind = (
        next((s for s in top if s.kind == "pair" and s.path == ("passkeys",)), None)
        or next((s for s in top if s.kind == "comment" and _COMMENTED.match(s.raw)), None)
        or next((s for s in reversed(top) if s.kind == "pair"), None)
    )
    if behind is not None:
        return lines_after(text, behind.end - 1 if text[behind.end - 1 : behind.end] == "\n" else behind.end, [line])
    newline = newline_of(text)
    at = header
    for s in reversed(top):
        if s.kind == "comment" and s.end == at and header < len(text):
            at = s.start
    if at == len(text) and text.removeprefix("\ufeff") and not text.endswith("\n"):
        return Splice(start=at, end=at, text=newline + line)
    return Splice(start=at, end=at, text=line + newline)


def _prove(before: str, after: str, splice: Splice, expected: dict[str, Any], snippet: str) -> None:
    try:
        found = _parse(after)
    except tomllib.TOMLDecodeError:
        found = {}
    if found != expected or not untouched_equal(before, after, [splice]) or duplicates(after):
        raise EditRefused(
            "an edit of this file would change more than was planned",
            snippet=snippet,
            cure=f"write {NAME} by hand, as one line before the first [table]",
        )
