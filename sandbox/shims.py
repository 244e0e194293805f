"""Small tools whose answer depends on the simulation: who am I, who owns this, how much space is left."""

from __future__ import annotations

import asyncio
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from sandbox.standin import Become, Call

if TYPE_CHECKING:
    from sandbox.host import SandboxHost

REAL_PATH = "/usr/local/bin:/usr/bin:/bin"

_CP = """#!/bin/sh
# in place while the fault disk-full is on
for last; do :; done
[ -d "$last" ] && dir=$last || dir=$(dirname "$last")
case $(cd "$dir" 2>/dev/null && pwd)/ in
  {prefix}/*) echo "{name}: error writing '$last': No space left on device" >&2; exit 1 ;;
esac
exec {real} "$@"
"""

_TO_STDOUT = """#!/bin/sh
# in place while the fault disk-full is on
case $(readlink "/proc/$$/fd/1")/ in
  {prefix}/*) {real} "$@" >/dev/null; echo "{name}: write error: No space left on device" >&2; exit 1 ;;
esac
exec {real} "$@"
"""

_TEE = """#!/bin/sh
# in place while the fault disk-full is on
for last; do :; done
case $(cd "$(dirname "$last")" 2>/dev/null && pwd)/ in
  {prefix}/*) cat >/dev/null; echo "{name}: $last: No space left on device" >&2; exit 1 ;;
esac
exec {real} "$@"
"""

_DD = """#!/bin/sh
# in place while the fault disk-full is on
target=$(readlink "/proc/$$/fd/1")
for word; do
  case $word in of=*) target=$(cd "$(dirname "${{word#of=}}")" 2>/dev/null && pwd)/ ;; esac
done
case $target/ in
  {prefix}/*) echo "{name}: error writing: No space left on device" >&2; exit 1 ;;
esac
exec {real} "$@"
"""

_FULL = {"cp": _CP, "install": _CP, "cat": _TO_STDOUT, "gzip": _TO_STDOUT, "tee": _TEE, "dd": _DD}


def real(name: str) -> str:
    """The machine's own tool."""
    return shutil.which(name, path=REAL_PATH) or f"/usr/bin/{name}"


def fill_disk(host: SandboxHost, below: str) -> None:
    """Put shims before the tools that write, so that they fail below a path (all of the host when empty).

    Simplified: the shell's own redirections and `mv` within a file system still work, as they do not need a block
    either where the data is already there.
    """
    prefix = str(host.path(below)) if below else str(host.root)
    for name, text in _FULL.items():
        shim = host.root / "bin" / name
        shim.write_text(text.format(name=name, real=real(name), prefix=prefix))
        shim.chmod(0o755)


def free_disk(host: SandboxHost) -> None:
    """Take them away again."""
    for name in _FULL:
        (host.root / "bin" / name).unlink(missing_ok=True)


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
    if not any(call.host.full(Path(call.cwd) / a) for a in call.argv if not a.startswith("-")):
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
