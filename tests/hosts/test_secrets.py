"""Where secrets come from, and what messages never hold."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

import hosts.secrets
from hosts.redact import clean, last_line, tail
from hosts.secrets import resolve
from model.errors import SecretMissing
from model.fleet.spec import SecretRef


async def test_env(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KU_TEST", " pass word\n")
    assert await resolve(SecretRef(env="KU_TEST")) == " pass word\n"
    monkeypatch.delenv("KU_TEST")
    with pytest.raises(SecretMissing, match="the environment variable KU_TEST is not set"):
        await resolve(SecretRef(env="KU_TEST"))


@pytest.mark.parametrize(("text", "value"), [("x", "x"), ("x\n", "x"), ("x\n\n", "x\n"), (" x \r\n", " x ")])
async def test_file(tmp_path: Path, caplog: pytest.LogCaptureFixture, text: str, value: str) -> None:
    path = tmp_path / "secret"
    path.write_bytes(text.encode())
    path.chmod(0o600)
    assert await resolve(SecretRef(file=str(path))) == value
    assert not caplog.records


async def test_a_file_that_others_can_read(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "secret"
    path.write_text("hunter2")
    path.chmod(0o640)
    with caplog.at_level(logging.WARNING):
        assert await resolve(SecretRef(file=str(path))) == "hunter2"
    assert f"chmod 600 {path}" in caplog.text
    assert "hunter2" not in caplog.text


async def test_files_that_give_nothing(tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("\n")
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    for name, words in (("nowhere", "No such file"), ("empty", "is empty"), ("binary", "not UTF-8")):
        with pytest.raises(SecretMissing, match=words) as caught:
            await resolve(SecretRef(file=str(tmp_path / name)))
        assert name in str(caught.value)


async def test_command() -> None:
    assert await resolve(SecretRef(command="printf 'a b\\nc\\n'; cat; echo noise >&2")) == "a b\nc"
    for command, words in (("exit 3", "exit code 3"), ("true", "printed nothing"), ("printf '\\377'", "UTF-8")):
        with pytest.raises(SecretMissing, match=words):
            await resolve(SecretRef(command=command))
    with pytest.raises(SecretMissing) as caught:
        await resolve(SecretRef(command="echo hunter2 | tr a-z A-Z; exit 1"))
    assert "HUNTER2" not in str(caught.value)


async def test_a_command_that_does_not_end(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(hosts.secrets, "_COMMAND_SECONDS", 0.3)
    with pytest.raises(SecretMissing, match="did not end"):
        await resolve(SecretRef(command=f"sleep 30 | cat; echo never >{tmp_path}/never"))


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("\x1b[1;31mred\x1b[0m \x1b]0;title\x07text\r\n", "red text"),
        ("mongodb://admin:pa:ss@db:27017/x failed", "mongodb://•••@db:27017/x failed"),
        ('passkeys = ["abc", "def"]', "passkeys = •••"),
        ("KOMODO_PASSKEY=abc def", "KOMODO_PASSKEY=•••"),
        ('{"password": "abc"}', '{"password": •••'),
        ("api_secret: abc", "api_secret: •••"),
        ("Authorization: Bearer token: abc", "Authorization: Bearer token: •••"),
        ("no secret here: 5 files", "no secret here: 5 files"),
        ("https://user@host/path and ops@host:22", "https://user@host/path and ops@host:22"),
        ("said correct horse aloud", "said ••• aloud"),
    ],
)
def test_clean(text: str, cleaned: str) -> None:
    assert clean(text, "correct horse") == cleaned


def test_tail_and_last_line() -> None:
    text = "\n".join(f"zeile ü {n}" for n in range(2000))
    short = tail(text)
    assert len(short.encode()) <= 4096
    assert text.endswith(short)
    assert short.startswith("zeile")
    assert last_line("a\nb\n \n\n") == "b"
    assert last_line("") == ""
    assert len(tail("ü" * 5000).encode()) <= 4096
