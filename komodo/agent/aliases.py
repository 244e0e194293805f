"""Two spellings of one setting in two places: in two config files, or in a file and the environment.

The agent joins its config files to one object before it reads it, so two spellings in two files are a "duplicate field"
as in one (v2.3.2:bin/periphery/src/config.rs). The environment is read separately and has precedence: there, both
spellings work.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from komodo.files.periphery_toml import ALIASES
from model.facts import Finding, Severity


def in_two_files(configs: Iterable[tuple[str, Mapping[str, Any]]]) -> Iterator[tuple[str, str, str, str]]:
    """(first file, its spelling, second file, its spelling) of every pair; `configs`: path and content, in order."""
    files = tuple(configs)
    for names in ALIASES:
        seen = [(path, name) for path, data in files for name in names if name in data]
        for at, (path, name) in enumerate(seen):
            other = next(((p, n) for p, n in seen[at + 1 :] if p != path and n != name), None)
            if other is not None:
                yield path, name, *other
                break


def overridden(
    configs: Iterable[tuple[str, Mapping[str, Any]]], settings: Mapping[str, str]
) -> Iterator[tuple[str, str, str]]:
    """(file, its spelling, the environment's other spelling) of every setting that the environment takes over."""
    files = tuple(configs)
    for names in ALIASES:
        for path, data in files:
            for name in (n for n in names if n in data):
                for other in (f"PERIPHERY_{n.upper()}" for n in names if n != name):
                    if other in settings:
                        yield path, name, other


def findings(
    server: str, configs: Iterable[tuple[str, Mapping[str, Any]]], settings: Mapping[str, str]
) -> Iterator[Finding]:
    """What preflight says of them. Two spellings in one file are seen where that file is."""
    files = tuple(configs)
    for first, name, second, other in in_two_files(files):
        text = (
            f"{first} sets {name} and {second} sets {other}, two spellings of one setting: v2 does not start with both"
        )
        hint = f"remove {name} from {first}"
        yield Finding(code="alias-pair", severity=Severity.REFUSE, subject=server, text=text, hint=hint)
    for path, name, other in overridden(files, settings):
        text = f"{path} sets {name} and the environment {other}, two spellings of one setting: the environment's counts"
        yield Finding(code="alias-overridden", severity=Severity.WARN, subject=server, text=text)
