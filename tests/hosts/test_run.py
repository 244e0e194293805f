"""Scripts over a real SSH connection, with a real shell at its end."""

from __future__ import annotations

import asyncio
import time

import pytest

from hosts.script import Script
from model.errors import CommandFailed

from .conftest import Machine

TORTURE = (
    "",
    " ",
    "plain",
    "two words",
    "it's",
    '"quoted" $HOME `id` $(id) \\ \\n !',
    "line one\nline two",
    "\n",
    "ends with a newline\n",
    "\n\n starts with two",
    "tab\there",
    "-n",
    "--",
    "*",
    "überall 中文 🦎 \x81\x88",
    "\x01\x02\x7f",
    "x" * 20_000,
)
ECHO = Script("echo", 'for a in "$@"; do printf "%s\\0" "$a"; done; printf "\\n--\\n"; cat')


async def test_arguments_and_data_arrive_byte_for_byte(machine: Machine) -> None:
    data = bytes(range(256)) * 5000 + b"\n"
    done = await machine.host.run(ECHO, *TORTURE, data=data)
    args, _, rest = done.out.partition(b"\n--\n") if False else done.out.rpartition(b"\n--\n")
    assert rest == data or done.out.endswith(data)
    head = done.out[: -len(data)]
    assert head == b"".join(a.encode() + b"\0" for a in TORTURE) + b"\n--\n"


async def test_smoke(machine: Machine) -> None:
    done = await machine.host.run(Script("t", 'echo "$1"; echo oops >&2'), "hello")
    assert (done.code, done.text, done.err) == (0, "hello\n", "oops")
    begun = time.monotonic()
    for _ in range(20):
        await machine.host.run(Script("t", ":"))
    print("per run ms", (time.monotonic() - begun) / 20 * 1000)


async def test_job(machine: Machine) -> None:
    begun = time.monotonic()
    done = await machine.host.job("20261123T221500Z/web-1/1/step", machine.run_folder, Script("t", 'cat; echo "$1" >&2; echo "$KU_STAMP"'), "arg", data=b"da\0ta\n", change="20261123T221500Z", timeout=__import__("datetime").timedelta(seconds=20))
    print("job ms", (time.monotonic() - begun) * 1000)
    assert (done.code, done.out, done.err) == (0, b"da\0ta\n20261123T221500Z\n", "arg")
