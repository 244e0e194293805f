"""Findings for people: by severity, and one line for what several servers have in common."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from model.facts import Finding, Severity

ORDER = (Severity.REFUSE, Severity.WARN, Severity.INFO)
TITLES = {Severity.REFUSE: "Refused", Severity.WARN: "Warnings", Severity.INFO: "Notes"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Common:
    """The same finding of one or more subjects."""

    code: str
    severity: Severity
    text: str
    hint: str
    subjects: tuple[str, ...]


def by_severity(findings: Iterable[Finding]) -> tuple[tuple[str, tuple[Common, ...]], ...]:
    """Title and findings of each severity that occurs, the gravest first."""
    subjects: dict[tuple[Severity, str, str, str], list[str]] = {}
    for one in findings:
        subjects.setdefault((one.severity, one.code, one.text, one.hint), []).append(one.subject)
    groups = []
    for severity in ORDER:
        found = tuple(
            Common(code=code, severity=severity, text=text, hint=hint, subjects=tuple(dict.fromkeys(names)))
            for (of, code, text, hint), names in subjects.items()
            if of is severity
        )
        if found:
            groups.append((TITLES[severity], found))
    return tuple(groups)
