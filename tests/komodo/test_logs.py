"""Log lines against what real Komodo said."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from komodo import logs

KEY = "MCowBQYDK2VuAyEAhixFldecUM47tVbkdqhhYn6H1pCbHFsT+Zgz0B2XdgY="
WRONG = "MCowBQYDK2VuAyEAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="


def run(captures: Path, name: str) -> logs.RunLog:
    return logs.parse_run((captures / "logs" / f"{name}.log").read_text())


@pytest.mark.parametrize(
    ("name", "version", "keys", "passkeys", "listens"),
    [
        ("v1agent-ok", "1.19.5", None, 1, True),
        ("v1agent-dup-key", "1.19.5", None, 0, True),
        ("v2agent-ansi", "2.3.2", (KEY,), 1, True),
        ("v2agent-key+passkeys", "2.3.2", (KEY,), 1, True),
        ("v2agent-key+passkeys-empty", "2.3.2", (KEY,), 0, True),
        ("v2agent-no-auth", "2.3.2", None, None, True),
        ("v2agent-empty-keys", "2.3.2", (), 1, True),
        ("v2agent-string-two", "2.3.2", (WRONG, KEY), None, True),
        ("v2agent-passkeys-empty", "2.3.2", None, 0, True),
        ("v2agent-dup-key", "2.3.2", None, None, True),
        ("v2agent-file-missing", "2.3.2", ("file:/nope/core.pub",), None, False),
        ("v2agent-garbage", "2.3.2", ("hello",), None, False),
        ("v2agent-truncated", "2.3.2", (KEY[:57],), None, False),
        ("v2agent-wrong-key", "2.3.2", (WRONG,), 1, True),
    ],
)
def test_version_config_and_listening(
    captures: Path, name: str, version: str, keys: tuple[str, ...] | None, passkeys: int | None, listens: bool
) -> None:
    log = run(captures, name)
    assert log.version == version
    assert log.config is not None
    assert log.config.core_public_keys == keys
    assert log.config.passkeys == passkeys
    assert bool(log.listening) is listens


@pytest.mark.parametrize("path", sorted((Path(__file__).parent.parent / "captures/logs").glob("*.log")), ids=str)
def test_no_capture_loses_its_version_or_says_nothing(path: Path) -> None:
    text = path.read_text()
    log = logs.parse_run(text)
    plain = logs.stripped(text)
    assert bool(log.version) == (" version: v" in plain)
    assert len(log.logins) == plain.count("Logged in to Komodo Core")
    assert log.passkeys_used == ("using Passkeys" in plain)
    assert bool(log.errors or log.failures) >= ("panicked" in plain or " ERROR " in plain)
    for line in (*log.proof, *log.failures, *log.errors, *(login.line for login in log.logins)):
        assert "\x1b" not in line
        assert len(line) <= logs.LONGEST


def test_login_has_its_own_time_and_core(captures: Path) -> None:
    (login,) = run(captures, "v2agent-key+passkeys").logins
    assert (login.core, login.at) == ("localhost", "2026-11-23T18:21:46.400310Z")
    (outbound,) = run(captures, "v2out-again-nokey").logins
    assert outbound.core == "127.0.0.1:9120"


def test_passkey_login_is_seen(captures: Path) -> None:
    assert run(captures, "v2agent-passkey-ok").passkeys_used
    assert run(captures, "v2agent-passkey-ok").logins
    assert not run(captures, "v2agent-key+passkeys").passkeys_used


@pytest.mark.parametrize(
    ("name", "says", "hint"),
    [
        ("v2agent-wrong-key", "failed to validate Core public key", "another Core's key"),
        ("v2agent-passkeys-empty", "Invalid passkey", "by passkey"),
        ("v2agent-ed25519", "not X25519", "no X25519"),
        ("v2agent-truncated", "not base64", "no X25519"),
        ("v2agent-garbage", "Invalid hardcoded public key", "no X25519"),
        ("v2agent-file-missing", "/nope/core.pub", "not there"),
        ("v2agent-after-table", "expected a string", "above the first table"),
        ("v2agent-alias-pair", "duplicate field", "two spellings"),
        ("v2agent-dup-key", "/etc/komodo/periphery.config.toml", "open to any Core"),
        ("v2agent-addr", "already active", "two Servers"),
        ("v2out-existing-unpriv", "not able to fix", "privileged"),
    ],
)
def test_each_failure_has_its_reason_and_a_hint(captures: Path, name: str, says: str, hint: str) -> None:
    reason = run(captures, name).reason
    assert says in reason
    assert hint in logs.hint(reason)


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("Failed to connect to websocket | url: wss://x:8120/?core=c ← HTTP error: 405 Method Not Allowed", "v1 agent"),
        ("Failed to connect to websocket | url: wss://x:8120//?core=c ← HTTP error: 404 Not Found", "slash"),
        ("IO error: Connection refused (os error 111)", "nothing listens"),
        ("Periphery requires passkey auth", "passkey"),
        ("[Client] Failed to read handshake_m2: decrypt error", "lower case"),
        ("HTTP error: 500 Internal Server Error", "two Servers"),
    ],
)
def test_cores_error_texts_have_hints(text: str, hint: str) -> None:
    assert hint in logs.hint(text)


@pytest.mark.parametrize(
    ("line", "what"),
    [
        (
            "WARN: Failed to open file at /etc/komodo/p.toml | Os { code: 13, kind: PermissionDenied }",
            "/etc/komodo/p.toml",
        ),
        ("\x1b[33mWARN\x1b[0m: Unsupported file type at /etc/komodo/periphery.config", "/etc/komodo/periphery.config"),
        ("WARN: Failed to parse yaml file at /etc/my komodo/p.yaml | Error(…)", "/etc/my komodo/p.yaml"),
        (
            "WARN: Types on field secrets do not match | got String(…), expected object",
            "Types on field secrets do not match",
        ),
    ],
)
def test_every_way_of_skipping_a_config_is_seen(line: str, what: str) -> None:
    assert logs.parse_run(line).unparsed == (what,)


@pytest.mark.parametrize("name", ["v1agent-dup-key", "v2agent-dup-key"])
def test_a_parse_warning_is_never_passed_on(captures: Path, name: str) -> None:
    text = (captures / "logs" / f"{name}.log").read_text()
    log = logs.parse_run(text)
    assert log.unparsed == ("/etc/komodo/periphery.config.toml",)
    shown = "\n".join(logs.cleaned_lines(text.splitlines())) + repr(log)
    for secret in ("pass1", "pass2", "zzz", "passkeys = "):
        assert secret not in shown


@pytest.mark.parametrize(
    "line",
    [
        'thread x panicked: ParseFinalJson { e: Error("invalid type: string \\"hunter2\\", expected a sequence") }',
        'invalid type: string "hunter2", expected a sequence',
        "unknown variant `hunter2`, expected one of `a`",
        'passkeys = ["hunter2"]',
        'passkeys: Some(["hunter2", "b"])',
        "PERIPHERY_PASSKEYS=hunter2",
        "mongodb://admin:hunter2@db:27017/",
        "authorization: Bearer hunter2",
        "Authorization: hunter2",
        "5 | passkeys = hunter2",
        'secrets: {"A": "hunter2"}',
        'PeripheryConfig { port: 8120, passkeys: ["hunter2"], secrets: {"A": "hunter2"} }',
        'WARN: Failed to parse toml file at /x | Error { input: Some("hunter2") }',
        'WARN: Types on field secrets do not match | got String("hunter2"), expected object',
        '{"timestamp":"t","level":"WARN","fields":{"message":"Failed to parse toml file at /x | hunter2"}}',
    ],
)
def test_secrets_do_not_survive_cleaning(line: str) -> None:
    panicked = f"thread 'x' panicked at a.rs:1:1\n{line}"
    shown = logs.cleaned(line) + repr(logs.parse_run(panicked)) + repr(logs.parse_run(line))
    assert "hunter2" not in shown


def test_public_keys_do_survive_cleaning() -> None:
    line = f"core_public_keys: MCow…: {KEY} is invalid"
    assert KEY in logs.cleaned(line)


def test_pretty_and_json_forms_are_read(captures: Path) -> None:
    pretty = (
        "2026-11-23T18:21:42.720057Z  INFO PeripheryStartup: Komodo Periphery version: v2.3.2\n"
        "2026-11-23T18:21:42.720165Z  INFO PeripheryStartup: PeripheryConfig {\n    private_key: None,\n"
        f'    core_public_keys: Some(\n        [\n            "{KEY}",\n        ],\n    ),\n'
        '    passkeys: Some(\n        [\n            "####",\n        ],\n    ),\n    core_addresses: [],\n}\n'
    )
    log = logs.parse_run(pretty)
    assert log.config is not None
    assert (log.config.core_public_keys, log.config.passkeys) == ((KEY,), 1)
    lines = logs.stripped((captures / "logs/v2agent-key+passkeys.log").read_text()).splitlines()
    records = [{"timestamp": s[:27], "level": "INFO", "fields": {"message": s.split("INFO ")[-1]}} for s in lines[1:]]
    wrapped = "\n".join(json.dumps(record) for record in records)
    as_json = logs.parse_run(wrapped)
    assert as_json.config is not None
    assert (as_json.version, as_json.config.core_public_keys, len(as_json.logins)) == ("2.3.2", (KEY,), 1)


def test_only_the_last_run_of_a_containers_log_counts(captures: Path) -> None:
    old = (captures / "logs/v2agent-passkey-ok.log").read_text()
    new = (captures / "logs/v2agent-dup-key.log").read_text()
    log = logs.parse_run(logs.last_run(old + new))
    assert not log.passkeys_used
    assert log.unparsed
    assert not logs.parse_run(logs.last_run(new + old)).unparsed


def test_a_pinned_key_in_pem_form_is_that_key() -> None:
    pem = f"-----BEGIN PUBLIC KEY-----\\n{KEY}\\n-----END PUBLIC KEY-----\\n"
    line = f' INFO PeripheryStartup: PeripheryConfig {{ private_key: None, core_public_keys: Some(["{pem}"]) }}'
    log = logs.parse_run(f" INFO PeripheryStartup: Komodo Periphery version: v2.3.2\n{line}\n")
    assert log.config is not None
    assert log.config.core_public_keys == (KEY,)
