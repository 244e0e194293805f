"""A host that prints too much, or too slowly, costs a bounded time and little memory, and no other host's time."""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta

import pytest

from hosts.exec.protocol import NOISE, Answer
from hosts.exec.script import Script, parse
from hosts.ssh.pool import Hosts
from model.errors import CommandTimedOut, HostError
from tests.hosts.conftest import Ground, ground, hosts

__all__ = ["ground", "hosts"]
CHUNK = 32 * 1024
OK = Script("t", "echo ok")


def feed(answer: Answer, data: bytes, times: int = 1) -> int:
    """Feeds until the answer has enough; how many bytes it took."""
    fed = 0
    for _ in range(times):
        if answer.flooded or answer.code is not None:
            break
        answer.feed(data)
        fed += len(data)
    return fed


@pytest.mark.parametrize("line", [b"x" * CHUNK, b"\n" * CHUNK, (b"\nku-1 begi" * CHUNK)[:CHUNK]])
def test_noise_before_the_script_is_bounded(line: bytes) -> None:
    """62 MiB cost 27 s of CPU: every piece was searched from the first byte again."""
    answer = Answer("ku-1", 1000)
    assert feed(answer, line, 2000) <= NOISE + CHUNK
    assert answer.flooded
    assert not answer.begun


def test_the_search_is_linear() -> None:
    """In single bytes, where a second pass over each would take minutes."""
    answer = Answer("ku-1", 10_000_000)
    begun = time.process_time()
    for byte in b"noise" * 100_000 + b"\nku-1 begin\n" + b"y" * 500_000 + b"\nku-1 end 3\n":
        answer.feed(bytes((byte,)))
    assert time.process_time() - begun < 20
    assert (answer.begun, answer.code, len(answer.part)) == (True, 3, 500_000)


@pytest.mark.parametrize("cut", range(1, 24))
def test_markers_may_come_in_pieces(cut: int) -> None:
    answer = Answer("ku-1", 1000)
    whole = b"hello\nku-1 begin\nmine\nku-1 end 0\n"
    for start in range(0, len(whole), cut):
        answer.feed(whole[start : start + cut])
    assert (answer.part, answer.code) == (b"mine", 0)


def test_standard_output_beyond_its_limit_ends_the_call() -> None:
    answer = Answer("ku-1", 100_000)
    answer.feed(b"\nku-1 begin\n")
    assert feed(answer, b"x" * CHUNK, 2000) <= 100_000 + CHUNK
    assert answer.flooded


def test_standard_error_keeps_its_end_in_little_memory() -> None:
    answer = Answer("ku-1", 100_000, tail=True)
    answer.feed(b"\nku-1 begin\n")
    for number in range(100_000):
        answer.feed(b"line %d\n" % number)
        assert len(answer.part) <= 200_100
    answer.feed(b"\nku-1 end 0\n")
    assert answer.code == 0
    assert answer.part.endswith(b"line 99999\n")
    assert len(answer.part) <= 100_100


@pytest.mark.parametrize(
    ("shell", "error"),
    [
        ("exec yes", "printed more than 1 MiB before"),
        ("exec yes >&2", "printed more than 1 MiB before"),
        ('(eval "$1"); exec yes >&2', ""),
        ("while :; do printf x; sleep 0.2; done", "did not end within"),
        ("while :; do printf x >&2; sleep 0.2; done", "did not end within"),
    ],
)
async def test_a_login_shell_without_end(ground: Ground, hosts: Hosts, shell: str, error: str) -> None:
    """Neither floods nor single bytes outlive the limit of the call; other hosts are served meanwhile."""
    program = ground.folder / "shell"
    program.write_text(f"#!/bin/sh\n{shell}\n")
    program.chmod(0o755)
    bad = await hosts.get(ground.spec(await ground.server("bad", shell=(str(program),))))
    good = await hosts.get(ground.spec(await ground.server("good")))
    loop = asyncio.get_running_loop()
    begun = loop.time()
    flooding = asyncio.create_task(bad.run(OK, timeout=timedelta(seconds=3)))
    assert (await good.run(OK)).text == "ok\n"
    if error:
        with pytest.raises((HostError, CommandTimedOut), match=error):
            await flooding
    else:
        assert (await flooding).text == "ok\n"
    assert loop.time() - begun < 30


@pytest.mark.parametrize(
    ("text", "error"), [("exec yes", "printed more than 1 MiB"), ("yes >&2", "did not end within")]
)
async def test_a_script_without_end(ground: Ground, hosts: Hosts, text: str, error: str) -> None:
    host = await hosts.get(ground.spec(await ground.server()))
    with pytest.raises((HostError, CommandTimedOut), match=error):
        await host.run(Script("t", text), timeout=timedelta(seconds=3), limit=2**20)
    assert (await host.run(OK)).text == "ok\n"


async def test_a_file_larger_than_asked_for(ground: Ground, hosts: Hosts) -> None:
    """Also where it grows while it is read."""
    server = await ground.server()
    host = await hosts.get(ground.spec(server))
    server.tool("head", "exec yes")
    (server.folder / "file").write_text("small")
    with pytest.raises(HostError, match="printed more than"):
        await host.read(str(server.folder / "file"), limit=1000)


def test_only_line_feeds_end_a_line_of_our_protocol() -> None:
    """A value with another character that Unicode calls a line end would forge a line of its own."""
    ends = "\v\f\x1c\x1d\x1e\x85\u2028\u2029\r"
    value = "".join(f"{end}unit\tforged" for end in ends)
    assert parse(f"path\t{value}\n") == {"path": [value]}
    assert parse(f"lines:\nx{value}\ny\n")["line"] == [f"x{value}", "y"]
