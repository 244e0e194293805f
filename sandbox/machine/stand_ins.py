"""The programs in a simulated host's folder `bin`, which is first in PATH.

`docker`, `systemctl` and the others are links to one shell script that tells the sandbox its process id and runs the
lines that the sandbox answers: output, then an exit code, or another program, which is how `sudo` runs things. A Python
process for each would be a third of the cost of a simulated fleet.
`sudo` precedes nearly every script, and many run `df`, `id` and `chown`: these are answered without the sandbox unless
a fault is on or a password is asked.
"""

from __future__ import annotations

import os
import shlex
from pathlib import Path

from sandbox.machine.disks import real
from sandbox.machine.host import SandboxHost

FOLDERS = ("bin", "etc/komodo", "etc/systemd/system", "home/ops", "root", "tmp", "usr/local/bin", "var/lib", "var/log")

CLIENT = """#!/bin/sh
if kill -0 {sandbox} 2>/dev/null; then
  pipe={folder}/$$
  [ ! -e "$pipe" ] || {rm} -f "$pipe"
  {mkfifo} -m 600 "$pipe" 2>/dev/null && echo "$$ "{host} 2>/dev/null >{folder}/calls && . "$pipe"
fi
echo "${{0##*/}}: the sandbox is gone" >&2
exit 69
"""

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


def write(host: SandboxHost, control: Path, names: list[str]) -> None:
    """Make the host's folders, the stand-ins of these names, and the shell scripts that answer for some of them."""
    for folder in FOLDERS:
        (host.root / folder).mkdir(parents=True, exist_ok=True)
    client = host.root / "bin/.standin"
    words = {"folder": shlex.quote(str(control)), "host": shlex.quote(host.name), "rm": real("rm")}
    client.write_text(CLIENT.format(**words, mkfifo=real("mkfifo"), sandbox=os.getpid()))
    client.chmod(0o755)
    for name in names:
        link = host.root / "bin" / name
        if not link.is_symlink():
            link.symlink_to(".standin")
    _write_fast_path(host)


def _write_fast_path(host: SandboxHost) -> None:
    """Replace the links to some stand-ins, which move to bin/.slow."""
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
    """To be called whenever a fault is switched on or off, and when the rules of sudo change."""
    calm = not host.world.faults.any(host.name)
    for name, there in ((".calm", calm), (".calm-sudo", calm and host.sudo == "passwordless")):
        flag = host.root / "bin" / name
        if there:
            flag.touch()
        else:
            flag.unlink(missing_ok=True)
