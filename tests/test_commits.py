"""Commit messages follow CONTRIBUTING.md, from the commit after BASE on."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
BASE = "2c639ec5233be08355d74c7631fe47485dc8ec7f"
LONGEST = 72
NOT_VERBS = (
    "A",
    "All",
    "An",
    "Every",
    "How",
    "It",
    "New",
    "No",
    "That",
    "The",
    "There",
    "These",
    "This",
    "What",
    "When",
)
"""Words that begin a description of the code, where a subject says what the commit does to it."""
IMPERATIVES = (
    "Bring",
    "Embed",
    "Exceed",
    "Feed",
    "Focus",
    "Need",
    "Ping",
    "Proceed",
    "Seed",
    "Shed",
    "Speed",
    "Spread",
)
"""Imperatives that end like another form of a verb."""


def problems(message: str) -> list[str]:
    """What is wrong with a commit message."""
    subject, *body = message.rstrip("\n").split("\n")
    first = subject.split(" ")[0]
    found = []
    if len(subject) > LONGEST:
        found.append(f"the subject has {len(subject)} characters, more than {LONGEST}")
    if subject.endswith("."):
        found.append("the subject ends with a period")
    if not first[:1].isupper():
        found.append("the subject does not begin with a capital letter")
    if first in NOT_VERBS or (first not in IMPERATIVES and other_form(first)):
        found.append(f"the subject does not begin with an imperative: {first!r}")
    if body and body[0]:
        found.append("no blank line between subject and body")
    return found


def other_form(word: str) -> bool:
    return word.endswith(("ed", "ing")) or (word.endswith("s") and not word.endswith("ss"))


def git(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = ["git", "-c", "safe.directory=*", "-C", str(ROOT), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def commits() -> list[str]:
    """The commits to check: none without git or its repository; in a shallow clone without BASE, all it holds."""
    if not (ROOT / ".git").exists() or not shutil.which("git"):
        return []
    known = git("merge-base", "--is-ancestor", BASE, "HEAD").returncode == 0
    listed = git("rev-list", "--no-merges", f"{BASE}..HEAD" if known else "HEAD")
    assert listed.returncode == 0, listed.stderr
    return listed.stdout.split()


def test_commit_messages_follow_the_rules() -> None:
    wrong = []
    for commit in commits():
        message = git("show", "--no-patch", "--format=%B", commit).stdout
        wrong += [f"{commit[:9]} {message.splitlines()[0]!r}: {problem}" for problem in problems(message)]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    "message",
    [
        "Refuse payloads that are not authenticated",
        "Pass the digest on\n\nThe gate compares it.",
        "Focus the docs on users",
    ],
)
def test_a_good_message(message: str) -> None:
    assert problems(message) == []


@pytest.mark.parametrize(
    ("message", "problem"),
    [
        ("Refuse " + "payloads " * 9, "more than 72"),
        ("Refuse payloads.", "period"),
        ("refuse payloads", "capital"),
        ("Refused payloads", "imperative"),
        ("Refusing payloads", "imperative"),
        ("Refuses payloads", "imperative"),
        ("The payloads are refused", "imperative"),
        ("What is not signed is refused", "imperative"),
        ("Refuse payloads\nthat are not signed", "blank line"),
    ],
)
def test_a_bad_message(message: str, problem: str) -> None:
    assert any(problem in found for found in problems(message)), problems(message)
