"""What `check --explain` and docs/checks.md say about the checks. Findings name a check by its code."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from model.facts import Severity

TOOL = "a limit of this tool"
"""Source of a check that protects what this tool can do, rather than reporting a fact about Komodo."""
Rows = tuple[tuple[str, Severity, str, str, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One kind of finding."""

    id: str
    """KU and three digits; never used for another check later."""
    code: str
    """As findings and JSON output have it."""
    severity: Severity
    """Of the usual case; a finding may be milder."""
    sentence: str
    """What is wrong, without the names and values of a single case."""
    hint: str
    """What to do."""
    source: str
    """Of the fact: a file of Komodo's sources (version:path), a guide, another project, or TOOL."""

    def __str__(self) -> str:
        """The explanation for a terminal."""
        effect = {
            Severity.REFUSE: "refuses: nothing is changed before it is solved",
            Severity.WARN: "warns: the upgrade runs after an approval that shows it",
            Severity.INFO: "informs",
        }[self.severity]
        return f"{self.id} {self.code}: {self.sentence}\n  {effect}\n  what to do: {self.hint}\n  source: {self.source}"


def numbered(first: int, rows: Rows) -> tuple[Check, ...]:
    """Checks with ids from `first` on. New rows are added at the end, so that no id changes."""
    return tuple(
        Check(id=f"KU{number:03}", code=code, severity=severity, sentence=sentence, hint=hint, source=source)
        for number, (code, severity, sentence, hint, source) in enumerate(rows, start=first)
    )


def page(groups: Iterable[tuple[str, tuple[Check, ...]]]) -> str:
    """docs/checks.md."""
    lines = [
        "# Checks",
        "",
        "`komodo-upgrade check` reports these findings. `komodo-upgrade check --explain KU012` shows one of them, by",
        "its id or its code. `komodo/checks/` is the source of this page: `python -m komodo.checks` prints it.",
        "",
        "A warning that you know and accept is named in the fleet file, with a reason that the report shows. It is",
        "then a note, and no gate shows it. What refuses is never ignored.",
        "",
        "```toml",
        "[checks]",
        'ignore = ["KU023"]',
        'reason = "Renovate is paused"',
        "```",
    ]
    for title, checks in groups:
        lines += [
            "",
            f"## {title}",
            "",
            "| id | code | severity | what is wrong | what to do | source |",
            "|" + "---|" * 6,
        ]
        for one in checks:
            cells = (one.id, f"`{one.code}`", str(one.severity), one.sentence, one.hint, one.source)
            lines.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    return "\n".join(lines) + "\n"
