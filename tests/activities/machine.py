"""A host of the sandbox for the servers' scripts: real dash, real files, systemd and its journal simulated."""

from __future__ import annotations

import hashlib
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from hosts.exec.script import Script, standalone
from sandbox.machine.host import SandboxHost
from sandbox.machine.systemd import Service
from sandbox.releases import MARKER
from tests.activities.local_hosts import LocalHosts
from tests.shells import SHELL, path

OLD, NEW = "1.19.5", "2.3.2"
KEYED = f'core_public_keys = ["MCowBQYDK2VuAyEA{"A" * 43}="]\npasskeys = ["secret-1"]\n'
PLAIN = 'passkeys = ["secret-1"]\n'


def sha(text: str | bytes) -> str:
    return hashlib.sha256(text.encode() if isinstance(text, str) else text).hexdigest()


def agent(version: str) -> str:
    """A small binary that the sandbox's systemd takes for an agent of this version."""
    return f"#!/bin/sh\n{MARKER.decode()}{version} any\necho periphery {version}\n"


@dataclass
class Machine:
    host: SandboxHost
    before: str = ""
    """Shell code in front of each script: what a fault does to the shell itself."""

    @property
    def root(self) -> Path:
        return self.host.root

    @property
    def binary(self) -> Path:
        return self.root / "usr local/bin/periphery"

    @property
    def config(self) -> Path:
        return self.root / "etc/agent/periphery.config.toml"

    @property
    def folder(self) -> Path:
        return self.root / "state/fleet/20261123T221500Z"

    def environment(self) -> dict[str, str]:
        ours = {"PATH": path(self.root / "bin"), "LC_ALL": "C", "KU_STAMP": "20261123T221500Z"}
        return {**self.host.environment(root=True), **ours}

    def run(self, name: str, *words: str, data: str = "", **params: str) -> subprocess.CompletedProcess[str]:
        """Run a script as hosts do."""
        script = Script.load("komodo.sh", f"server/{name}", *words, **params)
        return subprocess.run(
            [SHELL, "-c", 'set -eu\numask 077\neval "$KU_TEXT"', name, *script.words],
            input=data,
            capture_output=True,
            text=True,
            timeout=60,
            env={**self.environment(), "KU_TEXT": self.before + script.text},
            check=False,
        )

    @property
    def service(self) -> Service:
        found = self.host.systemd.find("periphery")
        assert found is not None
        return found

    @property
    def log(self) -> str:
        """What the agent printed since its last start."""
        entries = self.host.journal.of("periphery.service", invocation=self.service.invocation)
        return "\n".join(entry.text for entry in entries)

    def calls(self, *words: str) -> int:
        """How many commands of the stand-ins began with these words."""
        return sum(r.argv[: len(words)] == words for r in self.host.commands)

    def replace(self, name: str, text: str) -> Path:
        """Put a script in the place of a program."""
        program = self.root / "bin" / name
        program.unlink(missing_ok=True)
        program.write_text(f"#!/bin/sh\n{text}\n")
        program.chmod(0o755)
        return program


UNIT = """[Service]
ExecStart=/bin/sh -lc "'{binary}' --config-path {config}"
"""


def build(tmp_path: Path) -> Machine:
    """One with a v1 agent that runs."""
    made = Machine(LocalHosts.of_session().host(tmp_path))
    for file, text, mode in (
        (made.binary, agent(OLD), 0o755),
        (made.config, PLAIN, 0o640),
        (
            made.root / "etc/systemd/system/periphery.service",
            UNIT.format(binary=made.binary, config=made.config),
            0o644,
        ),
    ):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        file.chmod(mode)
    LocalHosts.of_session().run(made.host.systemd.start(made.service))
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
    script = standalone("komodo.sh", "server/restore_server.sh").splitlines()
    texts = [
        ("0600", listed, RESTORE_LIST),
        ("0700", script, "restore.sh"),
        ("0700", standalone("komodo.sh", "server/auto_rollback.sh").splitlines(), "dead-man.sh"),
        ("0600", ['{"format": 1}'], "manifest.json"),
    ]
    blocks = ""
    for mode, lines, name in texts:
        content = "\n".join(lines) + "\n"
        blocks += f"text\t{mode}\t{len(content.encode())}\t{name}\n{content}"
    return machine.run(
        "back_up_server.sh", folder=str(machine.folder), stamp="20261123T221500Z", data=data or saves + blocks
    )


def stage(machine: Machine) -> subprocess.CompletedProcess[str]:
    """As the worker has pushed it: proven, and linked next to the running binary."""
    staged = machine.folder / "staged/periphery"
    staged.parent.mkdir(parents=True, exist_ok=True)
    staged.write_text(agent(NEW))
    return machine.run(
        "stage_agent.sh",
        file=str(staged),
        expected=sha(agent(NEW)),
        binary=str(machine.binary),
        old=sha(agent(OLD)),
    )


def switch(
    machine: Machine, attempt: int = 1, config: str = KEYED, auto_rollback: int = 0, scope: str = ""
) -> subprocess.CompletedProcess[str]:
    staged = machine.folder / "staged/periphery"
    if not staged.exists():
        staged.parent.mkdir(parents=True, exist_ok=True)
        staged.write_text(agent(NEW))
    return machine.run(
        "switch_agent.sh",
        mark=str(machine.folder / f"switch-{attempt}"),
        unit="periphery.service",
        binary=str(machine.binary),
        old=sha(agent(OLD)),
        staged=str(staged),
        new=sha(agent(NEW)),
        version=NEW,
        wait="5",
        config=str(machine.config),
        base=sha(PLAIN),
        result=sha(KEYED),
        key_file=str(machine.root / "agent/keys/core.pub"),
        core_key="the key",
        auto_rollback=str(auto_rollback),
        scope=scope,
        data=config,
    )


def restore(machine: Machine, *args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [SHELL, "-c", f'{machine.before}. "$0"', str(machine.folder / "restore.sh"), *args],
        capture_output=True,
        text=True,
        env=machine.environment(),
        timeout=60,
        check=False,
        stdin=subprocess.DEVNULL,
    )


SETUP = f"""import sys, os
assert sys.argv[1:] == ["--version=v{NEW}"]
os.remove({{binary!r}})
with open({{binary!r}}, "w") as f:
    f.write({agent(NEW)!r})
os.system("chmod +x '{{binary}}'")
os.system("systemctl start periphery")
"""


def by_script(machine: Machine, text: str) -> subprocess.CompletedProcess[str]:
    setup = machine.root / "setup-periphery.py"
    setup.write_text(text.format(binary=str(machine.binary)))
    return machine.run(
        "switch_by_script.sh",
        mark=str(machine.folder / "switch-1"),
        unit="periphery.service",
        binary=str(machine.binary),
        version=NEW,
        wait="5",
        url=setup.as_uri(),
        expected=sha(agent(NEW)),
        config=str(machine.config),
        base=sha(PLAIN),
        result=sha(KEYED),
        key_file=str(machine.root / "agent/keys/core.pub"),
        core_key="the key",
        data=KEYED,
    )
