"""What runs on a host: POSIX sh files of their own. Values reach them as arguments or standard input only."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

_NEEDS = re.compile(r"^# needs: (\S+)$", re.MULTILINE)


@cache
def packaged(package: str, name: str) -> str:
    """The text of a file in one of our packages: `packaged("komodo.sh", "switch_agent.sh")`."""
    top, *below = package.split(".")
    return files(top).joinpath(*below, name).read_text(encoding="utf-8")


@dataclass(frozen=True, slots=True)
class Script:
    """A sh script and the name that messages use for it. Runs with `set -eu`, LC_ALL=C and umask 077."""

    name: str
    text: str

    @classmethod
    @cache
    def load(cls, package: str, name: str) -> Script:
        """A script from package data with the prelude (`die`, `say`, `replace_file` …) in front.

        A line `# needs: FILE` near its top puts that file of the same package between the two.
        """
        text = packaged(package, name)
        libraries = [packaged(package, library) for library in _NEEDS.findall(text)]
        return cls(name, "\n".join([packaged("hosts.sh", "prelude.sh"), *libraries, text]))


def together(*calls: tuple[Script, Sequence[str]]) -> tuple[Script, tuple[str, ...]]:
    """Several scripts in one round trip, and the arguments of all. Each has a shell of its own.

    The first that fails ends it. What they print is joined, so their keys must differ where it matters.
    """
    parts: list[str] = []
    arguments: list[str] = []
    for number, (script, args) in enumerate(calls, start=1):
        mine = range(len(arguments) + 1, len(arguments) + len(args) + 1)
        words = " ".join(f'"${{{i}}}"' for i in mine)
        parts.append(f"ku_part_{number}() (\n{script.text}\n)\nku_part_{number} {words}")
        arguments += args
    return Script(" and ".join(script.name for script, _ in calls), "\n".join(parts)), tuple(arguments)


def parse(text: str) -> dict[str, list[str]]:
    """What `say KEY VALUE` printed: every value of each key, in order. Other lines are left out.

    What follows a line `lines:` is the value of `line`, as it is.
    """
    found: dict[str, list[str]] = {}
    said, mark, rest = f"\n{text}".partition("\nlines:\n")
    if mark:
        found["line"] = rest.splitlines()
    for line in said.splitlines():
        key, tab, value = line.partition("\t")
        if tab:
            found.setdefault(key, []).append(value)
    return found
