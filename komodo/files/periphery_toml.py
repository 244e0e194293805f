"""periphery.config.toml: what it sets, and Core's key added where the agent reads it. Every other byte stays.

A file that does not load is skipped without an error, and the agent then accepts any Core. A key that is written twice
therefore opens the host that it was meant to protect (v1.19.5:lib/config/src/load.rs; for v2 moghtech/lib
crates/config/src/load.rs).
"""

from __future__ import annotations

import copy
import re
import tomllib
from dataclasses import dataclass, field
from typing import Any

import tomlkit
from tomlkit import TOMLDocument
from tomlkit.exceptions import TOMLKitError
from tomlkit.items import Array, Comment, Item

from komodo.files.detect import refuse_unreadable, template_line
from komodo.files.splice import Edited, Splice, newline_of, untouched_equal
from komodo.files.toml_lines import duplicates, statements
from komodo.public_key import pinnable, understood
from model.errors import EditRefused

NAME = "core_public_keys"
BY_HAND = f"write {NAME} by hand, as one line before the first [table]"
_NAMES = (NAME, "core_public_key")
_BY_FILE = "Core's key in a file, which the agent replaces when Core rotates its keys"
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
    """What a config file sets. Its repr holds no secret."""

    loads: bool
    error_line: int = 0
    """Where it stops being TOML; 0: nowhere, or at its end."""
    error: str = ""
    """The parser's message, without any of the file's own text."""
    bare_variables: bool = False
    """It is TOML only after `${VAR}` is filled in: v1.19 does that before it parses the file, v2 afterwards."""
    duplicates: tuple[tuple[str, int, int], ...] = ()
    """(name, first line, second line)"""
    passkeys: tuple[str, ...] | None = field(default=None, repr=False)
    """None: not set. (): set and empty, which v1 takes for open, and with which v2 accepts no passkey."""
    core_public_keys: tuple[str, ...] | None = None
    """None: not set. (): set and empty, which lets any Core in."""
    misplaced: tuple[tuple[str, int], ...] = ()
    """`core_public_keys` inside a table, where the agent does not read it: (table, line)."""
    core_addresses: tuple[str, ...] = ()
    """Where a v2 agent connects to; none: Core connects to the agent."""
    connect_as: str = ""
    """The Server that a v2 agent connects as; empty: its host's name."""
    ssl_enabled: bool = True
    port: int = 8120
    alias_pairs: tuple[tuple[str, str], ...] = ()
    """Two names of one setting, both there: v2 does not start."""
    root_directory: str = "/etc/komodo"

    @property
    def outbound(self) -> bool:
        """The agent connects to Core, not Core to the agent."""
        return bool(self.core_addresses)

    @property
    def key_file(self) -> str:
        """Where an agent keeps Core's key by default (v2.3.2:client/core/rs/src/entities/config/periphery.rs)."""
        return f"file:{self.root_directory.rstrip('/')}/keys/core.pub"

    @property
    def pinned(self) -> tuple[str, ...]:
        """Keys in Komodo's one-line form; an entry that is not a key here (`file:…`) as it is."""
        return tuple(understood(entry) or entry for entry in self.core_public_keys or () if entry)

    @property
    def has_passkeys(self) -> bool:
        """Some passkey is set."""
        return bool(self.passkeys)


def inspect(text: str) -> ConfigFacts:
    """Read a config file. Never raises: what is wrong is in the facts."""
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
            duplicates=duplicates(text) if str(error).startswith("Cannot ") else (),
            misplaced=misplaced,
        )
    return ConfigFacts(
        loads=True,
        misplaced=misplaced,
        passkeys=_strings(data.get("passkeys")),
        core_public_keys=_strings(next((data[n] for n in _NAMES if n in data), None)),
        core_addresses=_strings(next((data[n] for n in ("core_addresses", "core_address") if n in data), None)) or (),
        connect_as=str(data.get("connect_as") or ""),
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


def edit_periphery_config(
    text: str, *, key: str, by_file: bool = False, key_file: str = "", instead_of: str = ""
) -> Edited:
    """Pin Core's key (or a plan's placeholder) in `core_public_keys`, at the top of the file.

    `by_file`: a reference to a file that holds the key is written, which the agent replaces when Core rotates its keys.
    `key_file` is that reference, if not the agent's default; `instead_of` the key that it takes the place of.

    Raises KeyRejected for a key that is not one, EditRefused with the lines to paste where the file cannot be edited.
    """
    key = pinnable(key)
    line = f'{NAME} = ["{key}"]'
    snippet = f"# before the first [table]:\n{line}"
    refuse_unreadable(text, snippet=snippet)
    facts = inspect(text)
    _refuse(text, facts, line, snippet)
    if by_file:
        key = next((e for e in facts.core_public_keys or () if e.startswith("file:")), key_file or facts.key_file)
    data, notes = _parse(text), tuple(_notes(facts))
    bom, top, tables = _split(text)
    document = _document(top, snippet)
    expected: object
    at = next((i for i, (k, _) in enumerate(document.body) if k and not k.is_dotted() and k.key in _NAMES), None)
    if at is None:
        name, expected, reason = NAME, [key], _first_reason(facts)
        splice = _insert(document, key, newline_of(text), last=not tables)
    else:
        name = next(n for n in _NAMES if n in data)
        value, expected, reason = _replacement(name, document.body[at][1], data[name], key)
        if by_file and instead_of and facts.pinned == (instead_of,):
            value, expected, reason = tomlkit.item([key]), [key], f"{name}: {_BY_FILE}"
        if value is None:
            return Edited(text=text, notes=notes)
        splice = _replace(document, at, name, value)
    result = document.as_string()
    _prove(top, result, splice, tables, {**data, name: expected}, snippet)
    return Edited(text=bom + result + tables, reasons=(reason,), notes=notes)


def _split(text: str) -> tuple[str, str, str]:
    """A byte order mark (tomlkit refuses one), what comes before the first table header, and the rest."""
    body = text.removeprefix("\ufeff")
    lines = re.split(r"(?<=\n)", body)
    header = next((s.line for s in statements(text) if s.kind != "pair"), len(lines) + 1)
    return text[: len(text) - len(body)], "".join(lines[: header - 1]), "".join(lines[header - 1 :])


def _document(top: str, snippet: str) -> TOMLDocument:
    """The settings above the tables. Raises EditRefused where tomlkit changes a byte, or reads other values.

    Tables are left out: tomlkit joins [[lists]] that are apart, and Core's key never belongs into a table.
    """
    try:
        document = tomlkit.parse(top)
        # Komodo's parser and tomllib read a line break inside of a string as \n, tomlkit as it is written.
        seen = tomlkit.parse(top.replace("\r\n", "\n")) if "\r\n" in top else document
        same = document.as_string() == top and seen.unwrap() == _parse(top)
    except (TOMLKitError, ValueError):
        same = False
    if not same:
        raise EditRefused("this file cannot be edited without a change to other lines", snippet=snippet, hint=BY_HAND)
    return document


def _rendered(document: TOMLDocument, end: int) -> str:
    """The text of the entries before `end`."""
    part = TOMLDocument()
    part.body.extend(document.body[:end])
    return part.as_string()


def _insert(document: TOMLDocument, key: str, newline: str, *, last: bool) -> Splice:
    """Add the setting to the document. Returns where its line has to appear in the text."""
    at = _place(document, last=last)
    head = _rendered(document, at)
    value, line = tomlkit.item([key]), f'{NAME} = ["{key}"]'
    if head and not head.endswith("\n"):
        document.body.insert(at, (None, tomlkit.ws(newline)))
        value.trivia.trail, line, at = "", newline + line, at + 1
    else:
        value.trivia.trail, line = newline, line + newline
    document.body.insert(at, (tomlkit.key(NAME), value))
    return Splice(start=len(head), end=len(head), text=line)


def _place(document: TOMLDocument, *, last: bool) -> int:
    """Behind `passkeys`, else behind the template's commented line, else behind the last setting."""
    body = document.body
    places = (
        next((i for i, (k, _) in enumerate(body) if k and k.key == "passkeys"), None),
        next((i for i, (_, v) in enumerate(body) if isinstance(v, Comment) and _COMMENTED.match(v.as_string())), None),
        next((i for i in range(len(body) - 1, -1, -1) if body[i][0]), None),
    )
    behind = next((i for i in places if i is not None), None)
    if behind is not None:
        return behind + 1
    at = len(body)
    while at and not last and isinstance(body[at - 1][1], Comment):
        at -= 1  # comments right above a table belong to it
    return at


def _replace(document: TOMLDocument, at: int, name: str, value: Item) -> Splice:
    """Exchange the value in the document. Returns which part of the text has to change."""
    old = document.body[at][1].as_string()
    end = _rendered(document, at + 1)
    start = end.index(old, end.index(name, len(_rendered(document, at))))
    if value is not document.body[at][1]:
        document[name] = value
    return Splice(start=start, end=start + len(old), text=document.body[at][1].as_string())


def _refuse(text: str, facts: ConfigFacts, line: str, snippet: str) -> None:
    for name, first, second in facts.duplicates:
        raise EditRefused(
            f"{name} is set twice, on lines {first} and {second}: the file does not load, "
            "so the agent ignores all of it and accepts any Core today",
            snippet=f"# keep one of line {first} and line {second}\n{line}",
            hint="remove one of the two lines, restart the agent, then try again",
        )
    if not facts.loads:
        raise _not_loading(text, facts, line, snippet)
    for first_name, second_name in facts.alias_pairs:
        raise EditRefused(
            f"{first_name} and {second_name} are two names of one setting, and v2 does not start with both",
            snippet=f"# remove {second_name}, keep {first_name}\n{line}",
            hint="remove one of them, then try again",
        )
    for table, number in facts.misplaced:
        if table == "secrets" and not isinstance(_parse(text)["secrets"].get(NAME, ""), str):
            raise EditRefused(
                f"line {number}: {NAME} is inside [secrets], where only strings are allowed: the agent does not start",
                snippet=f"# remove line {number}; before the first [table]:\n{line}",
                hint=f"remove line {number}, then try again",
            )


def _not_loading(text: str, facts: ConfigFacts, line: str, snippet: str) -> EditRefused:
    template = template_line(text)
    if template:
        return EditRefused(
            f"line {template} is a template ({{{{ … }}}}): another tool renders this file",
            snippet=snippet,
            hint="make this change in the template and render it again",
        )
    where = f"line {facts.error_line}" if facts.error_line else "its end"
    open_today = "the agent ignores the whole file, without an error, and accepts any Core today"
    for s in statements(text):
        if s.kind == "pair" and s.path == ("passkeys",) and not s.loads and not facts.bare_variables:
            return EditRefused(
                f"line {s.line}: passkeys is not TOML (its value needs quotes and brackets): {open_today}",
                snippet=f'passkeys = ["<the passkey of line {s.line}, in quotes>"]\n{line}',
                hint=f"correct line {s.line} and restart the agent: it is open until then",
            )
    if facts.bare_variables:
        return EditRefused(
            f"{where} holds a ${{…}} without quotes: v1.19 fills it in before it reads the file, v2 skips all of it",
            snippet=snippet,
            hint="write the value itself there",
        )
    what = "this is JSON or YAML, not TOML" if text.lstrip().startswith(("{", "---")) else facts.error
    return EditRefused(
        f"this file is not TOML at {where} ({what}): {open_today}",
        snippet=snippet,
        hint="correct it and restart the agent: it is open until then",
    )


def _notes(facts: ConfigFacts) -> list[str]:
    notes = [
        f"line {number}: {NAME} is inside [{table}], where the agent does not read it"
        for table, number in facts.misplaced
    ]
    if facts.passkeys == () and not facts.core_public_keys:
        notes.append("passkeys is empty: the v1 agent accepts any Core today")
    files = [e for e in facts.core_public_keys or () if e.startswith("file:")]
    return notes + [f"{file} has to exist on the agent's machine, or the agent does not start" for file in files]


def _first_reason(facts: ConfigFacts) -> str:
    more = "; with it the agent ignores its passkeys" if facts.has_passkeys else ""
    return f"{NAME} added: the agent accepts only the Core with this key{more}"


def _replacement(name: str, old: Item, value: object, key: str) -> tuple[Item | None, object, str]:
    """The item to write (None: nothing to do), its value as data, the reason."""
    entries = list(_strings(value) or ())
    kept = [e for e in entries if e == key or understood(e) or e.startswith("file:") or "$" in e]
    there = any(key in (e, understood(e)) for e in entries)
    if there and kept == entries:
        return None, value, ""
    dropped = len(entries) - len([e for e in kept if e])
    if not kept:
        was = "it was empty, which lets any Core in" if not [e for e in entries if e] else "what it held is no key"
        return tomlkit.item([key]), [key], f"{name} set to Core's key: {was}"
    removed = f"; {dropped} that v2 would not start with removed" if dropped else ""
    reason = f"{name}: Core's key added to the {len(kept)} that are there, which would keep this Core out{removed}"
    raw = old.as_string()
    if isinstance(value, str) and raw[:3] not in ('"""', "'''") and "#" not in value:
        joined = ", ".join(kept if there else [*kept, key])
        return tomlkit.string(joined), joined, reason
    if dropped or not isinstance(old, Array):
        new = kept if there else [*kept, key]
        items = [tomlkit.string(e, multiline="\n" in e) for e in new]
        return tomlkit.item(items), new, reason
    new = [key, *entries]
    if "\n" not in raw:
        return tomlkit.item(new), new, reason
    changed = copy.deepcopy(old)
    changed.insert(0, key)
    return changed, new, reason


def _prove(before: str, after: str, splice: Splice, tables: str, expected: dict[str, Any], snippet: str) -> None:
    """Raise EditRefused unless Komodo's kind of parser reads what was planned and every other byte is the same."""
    try:
        found = _parse(after + tables)
    except tomllib.TOMLDecodeError:
        found = {}
    if found != expected or not untouched_equal(before, after, [splice]):
        raise EditRefused("an edit of this file would change more than was planned", snippet=snippet, hint=BY_HAND)
