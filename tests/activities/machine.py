"""A machine for the servers' sh files: real dash, real files, stand-ins for systemctl and journalctl with a state."""

from __future__ import annotations

import hashlib
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from hosts.script import Script, packaged
from tests.shells import SHELL, path

OLD, NEW = "1.19.5", "2.3.2"
KEYED = 'core_public_keys = ["MCow"]\npasskeys = ["secret-1"]\n'
PLAIN = 'passkeys = ["secret-1"]\n'

SYSTEMCTL = r"""#!/bin/sh
d={state}
echo "$*" >>"$d/calls"
case $1 in
  show)
    for p in ActiveState InvocationID NRestarts SubState MainPID; do echo "$p=$(cat "$d/$p" 2>/dev/null)"; done ;;
  is-active) cat "$d/ActiveState" ;;
  stop) echo inactive >"$d/ActiveState" ;;
  start)
    if [ "$(cat "$d/ActiveState")" = active ]; then exit 0; fi
    n=$(($(cat "$d/count") + 1)); echo $n >"$d/count"; echo "run$n" >"$d/InvocationID"; echo active >"$d/ActiveState"
    v=$({binary} --version | sed 's/^periphery //')
    j=$d/journal.run$n
    case $v in 2*) printf '\033[2mx\033[0m INFO PeripheryStartup: ' >"$j" ;; *) : >"$j" ;; esac
    echo "Komodo Periphery version: v$v" >>"$j"
    echo "PeripheryConfig {{ $(head -n 1 {config}) }}" >>"$j"
    echo "Server starting on https://[::]:8120" >>"$j"
    if [ -f "$d/crash" ] && [ "$v" = "$(cat "$d/crash")" ]; then echo failed >"$d/ActiveState"; : >"$j"; fi ;;
esac
"""
JOURNALCTL = r"""#!/bin/sh
for w; do case $w in _SYSTEMD_INVOCATION_ID=*) cat "{state}/journal.${{w#*=}}" 2>/dev/null;; esac; done
exit 0
"""


def sha(text: str | bytes) -> str:
    return hashlib.sha256(text.encode() if isinstance(text, str) else text).hexdigest()


def agent(version: str) -> str:
    return f"#!/bin/sh\necho periphery {version}\n"


@dataclass
class Machine:
    root: Path
    before: str = ""
    """Shell code in front of each script: what a fault does to the shell itself."""

    @property
    def binary(self) -> Path:
        return self.root / "usr local/bin/periphery"

    @property
    def config(self) -> Path:
        return self.root / "etc/komodo/periphery.config.toml"

    @property
    def folder(self) -> Path:
        return self.root / "state/fleet/20261123T221500Z"

    def environment(self) -> dict[str, str]:
        return {"PATH": path(self.root / "bin"), "LC_ALL": "C", "KU_STAMP": "20261123T221500Z"}

    def run(self, name: str, *args: str, data: str = "", kill_at: int = 0) -> subprocess.CompletedProcess[str]:
        """Runs a script as hosts do; with kill_at, ends it hard at that external command (counted by a stand-in)."""
        text = Script.load("komodo.sh", name).text
        return subprocess.run(
            [SHELL, "-c", 'set -eu\numask 077\neval "$KU_TEXT"', name, *args],
            input=data,
            capture_output=True,
            text=True,
            timeout=60,
            env={**self.environment(), "KU_TEXT": self.before + text, "KILL_AT": str(kill_at)},
            check=False,
        )

    def state(self, name: str) -> str:
        path = self.root / "systemd" / name
        return path.read_text().strip() if path.exists() else ""

    def set(self, name: str, value: str) -> None:
        (self.root / "systemd" / name).write_text(value + "\n")

    def calls(self, verb: str) -> int:
        return sum(line.startswith(verb) for line in self.state("calls").splitlines())


def build(tmp_path: Path) -> Machine:
    """One with a v1 agent that runs."""
    made = Machine(tmp_path)
    for folder in ("bin", "systemd", "state", "etc/komodo", "usr local/bin"):
        (tmp_path / folder).mkdir(parents=True)
    quoted = f"'{made.binary}'"
    texts = {
        "systemctl": SYSTEMCTL.format(state=tmp_path / "systemd", binary=quoted, config=made.config),
        "systemd-run": "#!/bin/sh\nexit 1\n",
        "journalctl": JOURNALCTL.format(state=tmp_path / "systemd"),
    }
    for name, text in texts.items():
        (tmp_path / "bin" / name).write_text(text)
        (tmp_path / "bin" / name).chmod(0o755)
    made.binary.write_text(agent(OLD))
    made.binary.chmod(0o755)
    made.config.write_text(PLAIN)
    made.config.chmod(0o640)
    for name, value in {"count": "0", "ActiveState": "inactive", "NRestarts": "0"}.items():
        made.set(name, value)
    subprocess.run(["systemctl", "start", "x"], env=made.environment(), check=True)
    return made


RESTORE_LIST = "restore.list"


def back_up(machine: Machine, data: str | None = None) -> subprocess.CompletedProcess[str]:
    files = [
        ("binary", sha(agent(OLD)), "0755", "periphery", "-", machine.binary),
        ("config", sha(PLAIN), "0640", "periphery.config.toml", "bak_v1", machine.config),
    ]
    owner = f"{os.getuid()}:{os.getgid()}"
    saves = "".join(f"save\t{s}\t{name}\t{guide}\t{path}\n" for _, s, _, name, guide, path in files)
    listed = ["format\t1", "unit\tperiphery.service", f"version\t{OLD}", "wait\t5"]
    listed += [f"file\t{kind}\t{s}\t{mode}\t{owner}\t{name}\t{path}" for kind, s, mode, name, _, path in files]
    script = packaged("komodo.sh", "restore_server.sh").splitlines()
    texts = [
        ("0600", listed, RESTORE_LIST),
        ("0700", script, "restore.sh"),
        ("0700", packaged("komodo.sh", "dead_man.sh").splitlines(), "dead-man.sh"),
        ("0600", ['{"format": 1}'], "manifest.json"),
    ]
    blocks = ""
    for mode, lines, name in texts:
        content = "\n".join(lines) + "\n"
        blocks += f"text\t{mode}\t{len(content.encode())}\t{name}\n{content}"
    return machine.run("back_up_server.sh", str(machine.folder), "20261123T221500Z", data=data or saves + blocks)


def stage(machine: Machine) -> subprocess.CompletedProcess[str]:
    """As the worker has pushed it: proven, and laid beside the running binary."""
    staged = machine.folder / "staged/periphery"
    staged.parent.mkdir(parents=True, exist_ok=True)
    staged.write_text(agent(NEW))
    return machine.run("stage_agent.sh", str(staged), sha(agent(NEW)), "", str(machine.binary), sha(agent(OLD)))


def switch(
    machine: Machine, attempt: int = 1, config: str = KEYED, dead_man: int = 0
) -> subprocess.CompletedProcess[str]:
    staged = machine.folder / "staged/periphery"
    if not staged.exists():
        staged.parent.mkdir(parents=True, exist_ok=True)
        staged.write_text(agent(NEW))
    return machine.run(
        "switch_agent.sh",
        str(machine.folder / f"switch-{attempt}"),
        "periphery.service",
        str(machine.binary),
        sha(agent(OLD)),
        str(staged),
        sha(agent(NEW)),
        NEW,
        "5",
        str(machine.config),
        sha(PLAIN),
        sha(KEYED),
        str(dead_man),
        data=config,
    )


def restore(machine: Machine, *args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [SHELL, "-c", f'{machine.before}. "$0"', str(machine.folder / "restore.sh"), *args],
        capture_output=True,
        text=True,
        env={"PATH": machine.environment()["PATH"]},
        timeout=60,
        check=False,
        stdin=subprocess.DEVNULL,
    )


SETUP = """import sys, os, urllib.request
version = sys.argv[1].removeprefix("--version=v")
os.remove({binary!r})
with open({binary!r}, "w") as f:
    f.write("#!/bin/sh\\necho periphery " + version + "\\n")
os.system("chmod +x '{binary}'")
os.system("systemctl start periphery")
"""


def by_script(machine: Machine, text: str) -> subprocess.CompletedProcess[str]:
    setup = machine.root / "setup-periphery.py"
    setup.write_text(text.format(binary=str(machine.binary)))
    return machine.run(
        "switch_by_script.sh",
        str(machine.folder / "switch-1"),
        "periphery.service",
        str(machine.binary),
        NEW,
        "5",
        setup.as_uri(),
        str(machine.config),
        sha(PLAIN),
        sha(KEYED),
        "0",
        data=KEYED,
    )
