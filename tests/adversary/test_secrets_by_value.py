"""Secrets that no pattern recognizes in an error are removed because their value is known."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from activities.interceptor import translate
from hosts import known_secrets
from hosts.redact import clean
from hosts.secrets import resolve
from model.errors import CommandFailed
from model.facts import LONGEST_FINDING, Finding, Severity
from model.fleet.spec import SecretRef

SECRET = "Tr0ub4dor&3"

READ = (
    f"KOMODO_DATABASE_PASSWORD={SECRET}\n",
    f"KOMODO_DATABASE_PASSWORD='{SECRET}'\n",
    f'export KOMODO_JWT_SECRET="{SECRET}"\n',
    f'{{"Env": ["A=b", "KOMODO_WEBHOOK_SECRET={SECRET}", "C=d"]}}',
    f"      MONGO_INITDB_ROOT_PASSWORD: {SECRET} # of the database\n",
    f'passkeys = ["other-one-12", "{SECRET}"]\n',
    f"passkey = '{SECRET}'\n",
    f'  "db_password" : "{SECRET}",\n',
    f"KOMODO_DATABASE_URI=mongodb://admin:{SECRET}@db:27017/komodo\n",
)
ERRORS = (
    f"invalid interpolation format for services.core.environment.X: \"{SECRET}\"",
    f"services.mongo.command.2 must be a string, got {SECRET}",
    f"yaml: line 7: found character that cannot start any token near {SECRET}",
    f"exec: {SECRET}: not found",
    f"unexpected character in variable name near {SECRET!r}",
    f"--password {SECRET}",
    f"-p{SECRET}",
    f"mongodump: authentication failed (user admin, {SECRET})",
    "GET /?key=Tr0ub4dor%263 401",
)  # fmt: skip


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    known_secrets.forget_all()
    yield
    known_secrets.forget_all()


@pytest.mark.parametrize("read", READ)
@pytest.mark.parametrize("error", ERRORS)
def test_a_value_that_was_read_is_masked_in_errors(read: str, error: str) -> None:
    known_secrets.learn(read.encode(), "a.example")
    shown = clean(error)
    assert SECRET not in shown
    assert "Tr0ub4dor" not in shown
    assert "•••" in shown
    failure = translate(CommandFailed(error, code=1, tail=error, hint=error))
    assert "Tr0ub4dor" not in f"{failure.message}{failure.details}"


@dataclass(frozen=True, kw_only=True)
class _Facts:
    """As a step returns them."""

    path: str
    findings: tuple[Finding, ...]


def test_a_value_that_was_read_is_masked_in_findings_only() -> None:
    known_secrets.learn(READ[0].encode(), "a.example")
    finding = Finding(code="compose", severity=Severity.REFUSE, subject="core", text=ERRORS[0], hint=f"echo {SECRET}")
    masked = known_secrets.mask_findings(_Facts(path=f"/srv/{SECRET}", findings=(finding,)))
    assert SECRET not in f"{masked.findings}"
    assert masked.path == f"/srv/{SECRET}", "what steps work with stays as it is"


@pytest.mark.parametrize("length", [5, 8, len(SECRET) - 1, len(SECRET), len(SECRET) + 1])
def test_a_secret_that_a_limit_cuts_is_masked(length: int) -> None:
    """A finding is cut where it is made, before its secrets are masked."""
    known_secrets.learn(READ[0].encode(), "a.example")
    text = "x" * (LONGEST_FINDING - 1 - length) + SECRET + "y" * 100
    finding = Finding(code="compose", severity=Severity.REFUSE, subject="core", text=text)
    shown = known_secrets.mask_findings(finding).text
    assert shown.startswith("x" * (LONGEST_FINDING - 1 - length) + "•••")
    assert shown.endswith("…")


def test_text_that_only_resembles_the_beginning_of_a_secret_stays() -> None:
    known_secrets.learn(READ[0].encode(), "a.example")
    for text in ("Tr0ub, and more…", "the word Tr0…", "Tr0ub4"):
        assert known_secrets.mask(text) == text


async def test_a_reference_of_the_fleet_file_is_masked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ADVERSARY_SECRET", "pinned")
    assert await resolve(SecretRef(env="ADVERSARY_SECRET")) == "pinned"
    assert clean("rejected: pinned") == "rejected: •••"


@pytest.mark.parametrize("line", ["KOMODO_PASSWORD_AUTH=true", "TOKEN_FILE=/run/secrets/token", "api_key: ${API_KEY}"])
def test_what_is_no_secret_stays_readable(line: str) -> None:
    known_secrets.learn(line.encode(), "a.example")
    text = "true, /run/secrets/token, ${API_KEY}"
    assert known_secrets.mask(text) == text


@pytest.mark.parametrize(
    "noise",
    [
        b"password=" * 30_000,
        b"password=" * 3_000 + b"x" * 30_000 + b"a.b-" * 30_000,
        b"://" + b"a:" * 130_000,
        b"token=[" * 40_000,
        b'token="' * 40_000,
        b"token=yes\n" * 30_000,
    ],
)
def test_noise_costs_no_more_than_it_is_long(noise: bytes) -> None:
    began = time.process_time()
    known_secrets.learn(noise, "a.example")
    assert time.process_time() - began < 0.5


async def test_a_host_that_prints_many_values_displaces_only_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ADVERSARY_SECRET", "pinned-reference")
    await resolve(SecretRef(env="ADVERSARY_SECRET"))
    known_secrets.learn(READ[0].encode(), "b.example")
    lines = [f"token=value-number-{n}\n" for n in range(12_000)]
    began = time.process_time()
    for start in range(0, len(lines), 400):
        known_secrets.learn("".join(lines[start:]).encode(), "a.example")
    assert time.process_time() - began < 5, "30 outputs of up to 256 KiB"
    assert clean(f"{SECRET} pinned-reference") == "••• •••"
    assert len(known_secrets._of_hosts["a.example"]) == known_secrets.PER_HOST


def test_all_hosts_together_displace_values_of_those_that_print_most() -> None:
    known_secrets.learn(READ[0].encode(), "honest.example")
    for host in range(2 * known_secrets.MOST // known_secrets.PER_HOST):
        known_secrets.learn("".join(f"token=value-{host}-{n}\n" for n in range(300)).encode(), f"{host}.example")
    assert clean(SECRET) == "•••"
    assert sum(map(len, known_secrets._of_hosts.values())) == known_secrets.MOST


def test_a_value_that_is_seen_again_is_kept() -> None:
    for n in range(3 * known_secrets.PER_HOST):
        known_secrets.learn(f"{READ[0]}token=value-number-{n}".encode(), "a.example")
    assert clean(SECRET) == "•••"


def test_the_former_value_of_a_reference_is_masked_too() -> None:
    for value in ("first-of-them", "second-of-them"):
        known_secrets.learn_reference("the variable X", value)
    assert clean("first-of-them second-of-them") == "••• •••"
