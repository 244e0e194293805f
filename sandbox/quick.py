"""The stand-ins that are called most, answered by sh alone as long as nothing is wrong on their host.

`sudo` comes before nearly every script, `df`, `id` and `chown` inside many; a Python process for each would be half of
what a simulated fleet costs. Whenever a fault is on, or a password is asked, the real stand-in answers.
"""

from __future__ import annotations

import os
import shlex
from typing import TYPE_CHECKING

from sandbox.disks import real

if TYPE_CHECKING:
    from sandbox.host import SandboxHost

_SHIM = """#!/bin/sh
{quick}
exec {root}/bin/.slow/{name} "$@"
"""

_SUDO = """if [ -e {root}/bin/.calm-sudo ] && [ "${{1:-}}" = -n ]; then
  case ${{2:-}} in
    '' | -* | *=*) ;;
    /*) [ ! -x "$2" ] || {{ shift && exec {env} SUDO_COMMAND="$1" "$@"; }} ;;
    *) [ ! -x {root}/bin/"$2" ] && [ ! -x /usr/bin/"$2" ] || {{ shift && exec {env} SUDO_COMMAND="$1" "$@"; }} ;;
  esac
fi"""

_ID = """if [ "$#" = 1 ] && [ "$1" = -u ]; then
  if [ "${{KU_SANDBOX_UID:-}}" = 0 ]; then echo 0; else echo 1000; fi
  exit 0
fi"""

_REAL = """if [ -e {root}/bin/.calm ]; then exec {real} "$@"; fi"""


def write(host: SandboxHost) -> None:
    """Put them in place of the links to the real stand-ins, which move to bin/.slow."""
    root = shlex.quote(str(host.root))
    env = host.environment(root=True)
    env |= {"SUDO_USER": host.user, "SUDO_UID": "1000", "SUDO_GID": "1000"}
    words = shlex.join(["/usr/bin/env", "-i", *(f"{name}={value}" for name, value in env.items())])
    texts = {"sudo": _SUDO, "id": _ID, "df": _REAL}
    if os.getuid() == 0:
        texts["chown"] = _REAL
    slow = host.root / "bin/.slow"
    slow.mkdir(exist_ok=True)
    for name, text in texts.items():
        if not (slow / name).is_symlink():
            (slow / name).symlink_to("../.standin")
        shim = host.root / "bin" / name
        shim.unlink(missing_ok=True)
        quick = text.format(root=root, env=words, real=real(name))
        shim.write_text(_SHIM.format(quick=quick, root=root, name=name))
        shim.chmod(0o755)
    settle(host)


def settle(host: SandboxHost) -> None:
    """To be called whenever a fault was switched on or off, and when the rules of sudo changed."""
    calm = not host.world.faults.any(host.name)
    for name, there in ((".calm", calm), (".calm-sudo", calm and host.sudo == "passwordless")):
        flag = host.root / "bin" / name
        if there:
            flag.touch()
        else:
            flag.unlink(missing_ok=True)
