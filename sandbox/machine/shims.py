"""Small tools whose answer depends on the simulation: who am I, who owns this, how much space is left."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from sandbox.machine.call import Become, Call
from sandbox.machine.disks import real
from sandbox.machine.host import SandboxHost


def set_clock(host: SandboxHost, seconds: int) -> None:
    """`date` is so many seconds ahead of the real clock; 0: not any more."""
    shim = host.root / "bin/date"
    if not seconds:
        shim.unlink(missing_ok=True)
        return
    date = real("date")
    shim.write_text(f'#!/bin/sh\nexec {date} -d "@$(($({date} +%s) + {seconds}))" "$@"\n')
    shim.chmod(0o755)


async def identity(call: Call) -> int | Become:
    """`id`: root under sudo, else the login user."""
    uid, name = (0, "root") if call.root else (1000, call.host.user)
    flags = "".join(a.lstrip("-") for a in call.argv if a.startswith("-"))
    if "u" in flags or "g" in flags:
        call.out(f"{name if 'n' in flags else uid}\n")
    else:
        call.out(f"uid={uid}({name}) gid={uid}({name}) groups={uid}({name})\n")
    return 0


async def change_owner(call: Call) -> int | Become:
    """`chown`: done for real where the sandbox runs as root; else nothing happens, successfully, for a sudoer."""
    if os.getuid() == 0 or not call.root:
        return Become(real("chown"), ("chown", *call.argv), call.env)
    return 0


async def disk_free(call: Call) -> int | Become:
    """`df`: the machine's own, with nothing available where the fault disk-full is on."""
    if not any(call.host.is_full_for(Path(call.cwd) / a) for a in call.argv if not a.startswith("-")):
        return Become(real("df"), ("df", *call.argv), call.env)
    process = await asyncio.create_subprocess_exec(
        real("df"), *call.argv, cwd=call.cwd, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, err = await process.communicate()
    lines = out.decode().splitlines()
    header = lines[:1]
    column = next((i for i, word in enumerate((header or [""])[0].split()) if word.startswith("Avail")), 0)
    for line in lines[1:]:
        words = line.split()
        words[min(column, len(words) - 1)] = "0"
        header.append(" ".join(words))
    call.out("\n".join(header) + "\n")
    call.err(err)
    return process.returncode or 0
