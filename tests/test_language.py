"""Identifiers, texts and documents use the terms of docs/glossary.md instead of the words of earlier versions."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent

TERMS = {
    r"ways? back": "rollback",
    r"puts? (it |itself |them |the \w+ )?back|putting back": "restore, or roll back automatically",
    r"dead man": "automatic rollback (timer)",
    r"looks?(?! (up|like|for))|looked(?! up)|looking(?! (up|like|for))": "survey, check, recheck, read",
    r"nights?|nightly|tonight|evenings?": "run, maintenance window",
    r"fates?": "coverage",
    r"mend(s|ed|ing)?": "correct, repair",
    r"told": "reported, configured",
    r"parked": "waiting",
    r"unproven": "unverified",
    r"dark (time|seconds|window|servers?)|(goes|go|went|gone|stays?|keeps?|left) dark": "unmanaged, downtime",
    r"rooms?": "package, space",
    r"keepers|kept image": "image pin",
    r"beside": "next to",
    r"voids?|voided": "invalidate",
    r"cure[sd]?": "hint, remedy",
    r"signs? of life": "heartbeat",
    r"insists?|insisted": "retry",
    r"troubles?": "failure, problem",
    r"judge[sd]?|judging": "check, compare, decide",
    r"anew": "again",
    r"beforehand": "in advance",
    r"mode together|together (mode|key|pair)": "all at once",
    r"(was|were|is|are) at it|be at it": "is running",
    r"unless told|go-on": "by default, continue",
}
"""Pattern of words, in lower case and separated by one blank each → the standard term."""

OTHER_MEANING = (
    r"\\[nt]",  # escapes in strings
    r"dead[-_]man(\.sh|/|_|-\*|-\{|-\$|\")?(?= |\W|$)",  # names of files and units on hosts; the key of old fleet files
    r"staged/beside|\}/beside\"",  # a file in run folders
    r"offline_look",  # the key of old fleet files, which is rejected with the new name
    r"\bvoid\b(?= \w+\()",
    r"way_back",  # a field of recorded histories
)
"""Texts that are not words of this project: names in formats that do not change, CSS."""

SKIPPED = (
    "CHANGELOG.md",
    "LICENSE",
    "requirements.lock",
    "tests/test_language.py",
    "tests/fleet/folders-",
    "tests/captures/",
)
FILES = (".py", ".sh", ".md", ".html", ".css", ".js", ".svg", ".toml", ".yaml", ".service", "Makefile", ".ci/run")


def sources() -> Iterator[Path]:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in listed.splitlines():
        if name.endswith(FILES) and not name.startswith(SKIPPED) and (ROOT / name).is_file():
            yield ROOT / name


def words_of(line: str) -> str:
    """The words of a line in lower case, also those of names such as `PutItselfBack` and `dead_man`."""
    split = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", re.sub("|".join(OTHER_MEANING), " ", line))
    return re.sub(r"[_\s-]+", " ", split).lower()


def old_words(text: str) -> Iterator[tuple[int, str, str]]:
    """Line, word and standard term of each old word."""
    for number, line in enumerate(text.splitlines(), 1):
        words = words_of(line)
        for pattern, term in TERMS.items():
            for found in re.finditer(rf"(?<![a-z])(?:{pattern})(?![a-z])", words):
                yield number, found[0], term


def test_every_file_uses_the_standard_terms() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{number}: write {term!r} instead of {word!r}"
        for path in sources()
        for number, word, term in old_words(path.read_text())
    ]
    assert not found, "\n" + "\n".join(found)


def test_old_words_are_found_in_prose_and_in_names() -> None:
    text = "the way back of core\nclass PutItselfBack\ndead_mans = 1\nsh dead-man.sh state\nlook it up, it looks like"
    assert [(number, word) for number, word, _ in old_words(text)] == [
        (1, "way back"),
        (2, "put itself back"),
        (5, "look"),
    ]
