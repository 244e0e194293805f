"""A file that cannot be replaced: it is in a folder of one user and belongs to another, so neither can write it safely.

Root does not work in that folder, and its owner cannot give the new file to the owner of the old one.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

from model.facts import Finding, Severity


def foreign_findings(subject: str, printed: Iterable[str], wanted: Collection[str]) -> Iterator[Finding]:
    """`printed`: lines of `say_foreign`; `wanted`: the files that the upgrade replaces."""
    for line in printed:
        owner, _, path = line.partition("\t")
        if path in wanted:
            yield Finding(
                code="file-owner",
                severity=Severity.REFUSE,
                subject=subject,
                text=f"{path} does not belong to the owner of its folder, so it cannot be replaced safely",
                hint=f"give both to the same user: sudo chown {owner} {path}",
            )
