"""POSIX sh files that run on a host. Values reach them as named parameters, words or standard input, never as code."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files

_NEEDS = re.compile(r"^# needs: (\S+)$", re.MULTILINE)
_CARRIES = re.compile(r"^# carries: (.+)$", re.MULTILINE)
_PARAMS = re.compile(r"^# params: (.+)$", re.MULTILINE)
_NAME = re.compile(r"(?!ku_)[a-z][a-z0-9_]*")


@cache
def packaged(package: str, name: str) -> str:
    """The text of a file in one of our packages: `packaged("komodo.sh", "server/switch_agent.sh")`."""
    top, *below = package.split(".")
    return files(top).joinpath(*below, *name.split("/")).read_text(encoding="utf-8")


@dataclass(frozen=True, slots=True)
class Script:
    """A sh script, the name that messages use for it, and the words that it gets as "$@".

    It runs with `set -eu`, LC_ALL=C and umask 077.
    """

    name: str
    text: str
    words: tuple[str, ...] = ()

    @classmethod
    def load(cls, package: str, name: str, *words: str, **params: str) -> Script:
        """A script from package data, with the values of its parameters and the words after them.

        Lines near its top are read: `# needs: FILE` puts that file, of the same package or of hosts.sh, in front of it
        (see `library`), and `# params: NAME NAME?` declares its parameters (`?`: optional, empty if not given), which
        are variables in the script. The library `lib/prelude.sh` (`die`, `say` …) is always in front.

        Raises TypeError for a parameter that is missing or not declared.
        """
        text, required, optional = _loaded(package, name)
        missing = [param for param in required if param not in params]
        unknown = [param for param in params if param not in required + optional]
        if missing or unknown:
            raise TypeError(f"{name}: parameters missing: {missing}, unknown: {unknown}")
        pairs = [word for pair in params.items() for word in pair]
        return cls(name.rpartition("/")[2], text, (*pairs, "--", *words) if required + optional else words)

    def given(self, *words: str) -> Script:
        """The same script with other words."""
        return replace(self, words=words)


@cache
def _loaded(package: str, name: str) -> tuple[str, tuple[str, ...], tuple[str, ...]]:
    """The whole text that runs, and the names of the required and of the optional parameters."""
    text = packaged(package, name)
    parts = [packaged("hosts.sh", "lib/prelude.sh"), *(library(package, name) for name in _NEEDS.findall(text))]
    declared = " ".join(_PARAMS.findall(text)).split()
    required = tuple(param for param in declared if not param.endswith("?"))
    optional = tuple(param[:-1] for param in declared if param.endswith("?"))
    names = required + optional
    if bad := [param for param in names if not _NAME.fullmatch(param) or names.count(param) > 1]:
        raise ValueError(f"{name} declares parameters that cannot be used: {bad}")
    if names:
        # Set first, so that a variable of the environment is never taken for a parameter.
        empty = " ".join(f"{param}=''" for param in names)
        parts += [f"{empty}\nku_required='{' '.join(required)}' ku_optional='{' '.join(optional)}'"]
        parts += [packaged("hosts.sh", "lib/params.sh")]
    return "\n".join([*parts, text]), required, optional


def _shared(package: str, name: str) -> str:
    """The text of a file of the package or of hosts.sh."""
    try:
        return packaged(package, name)
    except FileNotFoundError:
        return packaged("hosts.sh", name)


def library(package: str, name: str) -> str:
    """A library of the package or of hosts.sh.

    One with a line `# carries: FILE…` comes as $ku_carried, the text of these files, for a shell of another user, too.
    """
    text = _shared(package, name)
    carried = "\n".join(packaged("hosts.sh", file) for file in " ".join(_CARRIES.findall(text)).split())
    return f"ku_carried={quoted(carried)}\n{EVALUATED}" if carried else text


EVALUATED = 'eval "$ku_carried"'


def quoted(text: str) -> str:
    """A word of sh that is this text."""
    if "\0" in text:
        raise ValueError("an argument cannot hold a NUL")
    return "'" + text.replace("'", "'\\''") + "'"


def standalone(package: str, name: str) -> str:
    """The text of a file that runs on a host without us: each line `# needs: FILE` is replaced by that file."""
    return _NEEDS.sub(lambda needed: _shared(package, needed[1]).rstrip("\n"), packaged(package, name))


def combine(*scripts: Script) -> Script:
    """Several scripts in one round trip. Each has a shell of its own, and the first that fails ends it.

    Their output is joined, so their keys must differ where it matters.
    """
    parts: list[str] = []
    words: list[str] = []
    for number, script in enumerate(scripts, start=1):
        mine = range(len(words) + 1, len(words) + len(script.words) + 1)
        own = " ".join(f'"${{{i}}}"' for i in mine)
        parts.append(f"ku_part_{number}() (\n{script.text}\n)\nku_part_{number} {own}")
        words += script.words
    return Script(" and ".join(script.name for script in scripts), "\n".join(parts), tuple(words))


def parse(text: str) -> dict[str, list[str]]:
    r"""The output of `say KEY VALUE`: every value of each key, in order. Other lines are left out.

    What follows a line `lines:` is the value of `line`, as it is. Lines end at "\n" only: a value may hold any other
    character that Unicode calls a line end.
    """
    found: dict[str, list[str]] = {}
    output, mark, rest = f"\n{text}".partition("\nlines:\n")
    if mark:
        found["line"] = rest.removesuffix("\n").split("\n") if rest else []
    for line in output.split("\n"):
        key, tab, value = line.partition("\t")
        if tab:
            found.setdefault(key, []).append(value)
    return found
