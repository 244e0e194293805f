"""Attack: a fleet file that is none, is huge, deep or slow to parse, or forges what a terminal shows."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from model.errors import FleetFileError
from model.fleet.file import load
from tests.model.broken_fleet_files import CORE, GOOD, HEAD, SERVER

BIG = 500 * 1024


def refused(path: Path) -> FleetFileError:
    began = time.process_time()
    with pytest.raises(FleetFileError) as caught:
        load(path)
    assert time.process_time() - began < 5  # a second on a quiet machine
    assert len(str(caught.value)) < 50_000
    return caught.value


def test_a_pipe_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fleet.toml")
    assert "pipe" in str(refused(tmp_path / "fleet.toml"))
    assert "device" in str(refused(Path("/dev/zero")))


HOSTILE = {
    "large": GOOD + "# " + "x" * 600_000,
    "deep list": "a = " + "[" * 100_000,
    "deep list over lines": "a = " + "[\n" * 100_000,
    "deep table": "a = " + "{a=" * 100_000,
    "dotted key": ".".join("a" * 100_000) + " = 1",
    "dotted keys": (".".join("a" * 2000) + " = 1\n") * 120,
    "quoted dotted key": ".".join(['"a"'] * 50_000) + " = 1",
    "blanks between dots": "a" + (" " * 50_000 + ".") * 9 + "b = 1",
    "huge integer": GOOD + "port = " + "9" * 100_000,
    "long integer": GOOD + "port = " + "9" * 4000,
    "long float": GOOD + "[timing]\npoll = 1e999\n",
    "100,000 keys": "\n".join(f"k{n} = 1" for n in range(50_000)),
    "100,000 servers": HEAD + CORE + "[[server]]\n" * 40_000,
    "unfinished values": "a = [\n" * (BIG // 6),
    "broken lines": "a =\n" * (BIG // 4),
    "unfinished strings": 'a = "\\"\n' * (BIG // 8),
    "escaped quotation marks": 'a = "' + '\\"' * (BIG // 2 - 10),
    "escaped triple quotation marks": '"""\\' * (BIG // 4),
    "long word": "a" * BIG,
    "digits as a duration": GOOD + f'[timing]\npoll = "{"9" * 400_000}"\n',
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_file_is_refused_soon(tmp_path: Path, text: str) -> None:
    file = tmp_path / "fleet.toml"
    file.write_text(text)
    refused(file)


INVISIBLE = ["\\u001b[2J", "\\u202e", "\u202e", "\\n", "\\u0085", "\u2028", "\\u200b", "\ufeff", "\\t"]


@pytest.mark.parametrize("character", INVISIBLE, ids=[ascii(c) for c in INVISIBLE])
@pytest.mark.parametrize(
    "text",
    [
        GOOD.replace('"web-1"', '"web-1X"'),
        HEAD.replace('"prod"', '"prodX"') + CORE + SERVER,
        GOOD + '[notify]\ncommand = "tellX"\n',
        GOOD + '[rollout]\nleave_behind = ["aX"]\n',
        GOOD + '"keyX" = 1\n',
    ],
)
def test_invisible_characters_are_refused_and_never_repeated(tmp_path: Path, text: str, character: str) -> None:
    file = tmp_path / "fleet.toml"
    file.write_text(text.replace("X", character))
    shown = str(refused(file))
    assert "U+" in shown or "not TOML" in shown
    assert all(c.isprintable() or c == "\n" for c in shown)


@pytest.mark.parametrize(
    "line",
    ['[timing]\npoll = "٣s"', '[rollout]\nwave = "٣"', 'jump = "bastion:٢٢"', 'user = "-oProxyCommand=id"'],
)
def test_numbers_are_ascii_and_users_are_no_options(tmp_path: Path, line: str) -> None:
    file = tmp_path / "fleet.toml"
    file.write_text(GOOD + line + "\n")
    refused(file)


CREDENTIALS = {
    "login": '[agent]\nurl = "https://ops:hunter2@mirror.example.net/periphery-{version}-{arch}"\n',
    "token": '[agent]\nurl = "https://hunter2@mirror.example.net/periphery-{version}-{arch}"\n',
    "query": '[agent]\nurl = "https://mirror.example.net/periphery-{arch}?X-Amz-Signature=hunter2"\n',
    "script": '[agent]\nscript_url = "https://mirror.example.net/setup.py?private_token=hunter2"\n',
    "unknown part": '[agent]\nurl = "https://ops:hunter2@mirror.example.net/{what}"\n',
    "user": 'user = "ops:hunter2"\n',
    "jump": 'jump = "ops:hunter2@bastion.example.net"\n',
    "jump with two": 'jump = "ops:hunter2@more@bastion.example.net"\n',
    "host": '[[server]]\nname = "web-2"\nhost = "ops:hunter2@10.0.0.12"\n',
}


@pytest.mark.parametrize("lines", CREDENTIALS.values(), ids=CREDENTIALS)
def test_passwords_are_refused_and_never_repeated(tmp_path: Path, lines: str) -> None:
    """Plans, reports, run folders and hosts' process lists show addresses."""
    file = tmp_path / "fleet.toml"
    file.write_text(GOOD + lines)
    assert "hunter2" not in str(refused(file))


def test_addresses_without_a_login_are_taken(tmp_path: Path) -> None:
    file = tmp_path / "fleet.toml"
    file.write_text(GOOD + '[agent]\nurl = "https://mirror.example.net/@komodo/periphery-{arch}?version={version}"\n')
    assert load(file).agent.url.endswith("?version={version}")
