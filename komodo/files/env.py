"""`.env` and `compose.env`: set the image tag, comment out KOMODO_FIRST_SERVER*. Every other byte stays.

Form of the files: docs.docker.com/compose/how-tos/environment-variables/variable-interpolation, "Env file syntax".
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from komodo.compose.interpolation import names, resolve
from komodo.compose.reference import for_target, is_newer, komodo_kind, parse, sole_variable, version_of
from komodo.files.detect import is_sops, refuse_unreadable
from komodo.files.splice import Edited, Splice, apply, line_end, untouched_equal
from komodo.public_key import with_key
from model.errors import EditRefused

TAG_VARIABLE = "COMPOSE_KOMODO_IMAGE_TAG"
"""The tag's variable in Komodo's own compose files (v1.15.0 to v2.3.2:compose/*.compose.yaml)."""

FIRST_SERVER = ("KOMODO_FIRST_SERVER", "KOMODO_FIRST_SERVER_ADDRESS", "KOMODO_FIRST_SERVER_NAME")
"""v2 fails to make a first server on a v1 database, once, at its first start; the first two together stop it from
starting at all, because one is the other's alias (v2.3.2:client/core/rs/src/entities/config/core.rs)."""

_NAME = re.compile(r"(?P<export>export[ \t]+)?(?P<name>[A-Za-z_][A-Za-z0-9_.\-\[\]]*)[ \t]*[=:][ \t]*")
_BLANKS = re.compile(r"[ \t]*")
_INLINE_COMMENT = re.compile(r"(?:^|[ \t])#")
_SECRET_REFERENCE = re.compile(r"^(?:op|vault|bw|aws-sm|ref\+\w+)://|\{\{|ENC\[")


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One assignment and its place. `start` is the first character of its name or `export`."""

    name: str
    raw: str
    quote: str
    start: int
    value_start: int
    value_end: int
    end: int
    """Behind its last line."""
    line: int


def entries(text: str) -> tuple[Entry, ...]:
    """Every assignment, in order. Raises EditRefused where a quote is never closed: Compose stops there too."""
    found: list[Entry] = []
    at = 1 if text.startswith("\ufeff") else 0
    line, counted = 1, 0
    while at < len(text):
        match = _NAME.match(text, _BLANKS.match(text, at).end())  # type: ignore[union-attr]  # matches always
        if match is None:
            at = line_end(text, at)
            continue
        # Counted from the entry before: from the beginning each time, a long file would take minutes.
        line, counted = line + text.count("\n", counted, match.start()), match.start()
        entry = _entry(text, match, line)
        found.append(entry)
        at = entry.end
    return tuple(found)


def _entry(text: str, match: re.Match[str], line: int) -> Entry:
    start, value = match.start(), match.end()
    quote = text[value : value + 1]
    if quote in ('"', "'"):
        closing = _closing_quote(text, value + 1, quote)
        if closing == -1:
            raise EditRefused(
                f"line {line}: the value of {match['name']} begins with a quote that is never closed",
                hint=f"close the quote on line {line}, then try again",
            )
        return Entry(
            name=match["name"], raw=text[value + 1 : closing], quote=quote, start=start, value_start=value + 1,
            value_end=closing, end=line_end(text, closing), line=line,
        )  # fmt: skip
    stop = text.find("\n", value)
    rest = text[value : len(text) if stop == -1 else stop]
    comment = _INLINE_COMMENT.search(rest)
    raw = (rest[: comment.start()] if comment else rest).rstrip(" \t\r")
    if not raw:  # behind the sign, so that a comment keeps its distance from a value that is put there
        value = start + len(match.group().rstrip(" \t"))
    return Entry(
        name=match["name"], raw=raw, quote="", start=start, value_start=value, value_end=value + len(raw),
        end=line_end(text, value), line=line,
    )  # fmt: skip


def _closing_quote(text: str, at: int, quote: str) -> int:
    while (at := text.find(quote, at)) != -1:
        before = at
        while text[before - 1] == "\\":
            before -= 1
        if (at - before) % 2 == 0:
            return at
        at += 1
    return -1


def values(text: str) -> dict[str, str]:
    """What Compose reads: the last of duplicates, without quotes, with earlier variables filled in.

    Raises EditRefused where the file cannot be read.
    """
    found: dict[str, str] = {}
    for entry in entries(text):
        found[entry.name] = _value(entry, found)
    return found


def _value(entry: Entry, known: dict[str, str]) -> str:
    if entry.quote == "'":
        return entry.raw
    raw = entry.raw
    if entry.quote == '"':
        raw = raw.replace("\\n", "\n").replace('\\"', '"')
    return resolve(raw, known)


def edit_env(text: str, *, target: str, tag_variables: tuple[str, ...], from_v1: bool | None = None) -> Edited:
    """Set each tag variable that the file holds to the target, and comment KOMODO_FIRST_SERVER* out when v1 becomes v2.

    `from_v1` None: as the tags in the file say (`latest` is v1). A variable the file does not hold is left to the
    compose file's own default. Raises EditRefused with the lines to paste.
    """
    snippet = "\n".join(f"{name}={target}" for name in tag_variables or (TAG_VARIABLE,))
    if is_sops(text) and not {*tag_variables, *FIRST_SERVER} & {e.name for e in entries(text)}:
        return Edited(text=text, notes=("encrypted by sops, without a name that is edited: nothing to do",))
    refuse_unreadable(text, snippet=snippet)
    found = entries(text)
    known = values(text)
    if from_v1 is None:
        from_v1 = not any(_major(known.get(name, "")) >= 2 for name in tag_variables)
    splices: list[Splice] = []
    reasons: list[str] = []
    notes: list[str] = []
    for name in tag_variables:
        _plan_tag(name, [e for e in found if e.name == name], known, target, snippet, splices, reasons)
    if from_v1:
        _plan_first_server(found, splices, reasons, notes)
    if "TZ" in known and "KOMODO_TIMEZONE" in known:
        notes.append(
            "TZ and KOMODO_TIMEZONE are both set: one is the other's alias, and a v2 Core that gets both does not start"
        )
    result = apply(text, splices)
    _prove(text, result, splices, snippet)
    return Edited(text=result, reasons=tuple(reasons), notes=tuple(notes))


def pin_in_env(text: str, *, name: str, key: str, same: Collection[str] = ()) -> Edited:
    """Add Core's key to the variable `name`, which the file holds. `same`: entries that mean the same key.

    Raises EditRefused with the line to paste.
    """
    snippet = f"{name}={key}"
    refuse_unreadable(text, snippet=snippet)
    last = [e for e in entries(text) if e.name == name][-1]
    known = values(text)
    new = with_key(known[name], key, same)
    if new is None:
        return Edited(text=text)
    inner = sole_variable(last.raw) if last.quote != "'" else None
    if inner is not None and inner.name in known and inner.name != name:
        return pin_in_env(text, name=inner.name, key=key, same=same)
    if ("$" in last.raw and last.quote != "'") or "\n" in last.raw or _SECRET_REFERENCE.search(last.raw):
        raise EditRefused(
            f"line {last.line}: the value of {name} is made of others, or filled in by another tool",
            snippet=snippet,
            hint=f"set {name} to {new} where its value comes from",
        )
    splice = Splice(start=last.value_start, end=last.value_end, text=new)
    result = apply(text, [splice])
    _prove(text, result, [splice], snippet)
    return Edited(text=result, reasons=(f"{name}: {pin_reason(known[name], new)}",))


def pin_reason(old: str, new: str) -> str:
    """Why the value of PERIPHERY_CORE_PUBLIC_KEYS changes."""
    if not old.strip():
        return "Core's key set: it was empty, which lets any Core in"
    kept = len(new.split(",")) - 1
    return f"Core's key added to the {kept} that are there" if kept else "Core's key set: it held no key"


def _major(value: str) -> int:
    tag = parse(value).tag if komodo_kind(value) else value
    return (version_of(tag.split("@")[0]) or (0,))[0]


def _plan_tag(
    name: str,
    found: Sequence[Entry],
    known: dict[str, str],
    target: str,
    snippet: str,
    splices: list[Splice],
    reasons: list[str],
) -> None:
    if not found:
        return
    last, old = found[-1], known[name]
    if _SECRET_REFERENCE.search(last.raw):
        raise EditRefused(
            f"line {last.line}: {name} is filled in by another tool, so its value is not in this file",
            snippet=snippet,
            hint="set it where it is kept",
        )
    tag, new = old.split("@")[0], target
    if "/" in old:
        if komodo_kind(old) is None:
            raise EditRefused(
                f"line {last.line}: {name} holds neither a version nor one of Komodo's images", snippet=snippet
            )
        tag, new = parse(old).tag, for_target(old, target)
    if is_newer(tag, target):
        raise EditRefused(f"line {last.line}: {name} is {tag} already: {target} would be a step back", snippet=snippet)
    if old == new or (tag == target and old.startswith(f"{target}@")):
        return
    if "\n" in last.raw:
        raise EditRefused(f"line {last.line}: the value of {name} spans several lines", snippet=snippet)
    splices.append(Splice(start=last.value_start, end=last.value_end, text=new))
    shadowed = f" (line {last.line}, which takes precedence over line {found[0].line})" if len(found) > 1 else ""
    reasons.append(f"{name}: {old or 'empty'} → {new}{shadowed}")


def _plan_first_server(found: Sequence[Entry], splices: list[Splice], reasons: list[str], notes: list[str]) -> None:
    for entry in found:
        if entry.name not in FIRST_SERVER:
            continue
        users = [e.name for e in found if e.name not in FIRST_SERVER and entry.name in names(e.raw) and e.quote != "'"]
        if users or "\n" in entry.raw:
            why = f"{', '.join(users)} is made from it" if users else "its value spans several lines"
            notes.append(f"line {entry.line}: {entry.name} stays, because {why}; v2 logs one harmless error about it")
            continue
        splices.append(Splice(start=entry.start, end=entry.start, text="# "))
        reasons.append(f"line {entry.line}: {entry.name} commented out: v2 would try to make that server")


def _prove(before: str, after: str, splices: Sequence[Splice], snippet: str) -> None:
    planned = {s.start: s.text for s in splices}
    expected = [(e.name, planned.get(e.value_start, e.raw)) for e in entries(before) if e.start not in planned]
    if not untouched_equal(before, after, splices) or [(e.name, e.raw) for e in entries(after)] != expected:
        raise EditRefused("the edit would change more of this file than was planned", snippet=snippet)
