"""The test bed as the scenarios use it: start, reset, stop, inspect machines, and inject failures."""

from __future__ import annotations

import hashlib
import re
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.e2e.bed import ground, images, install, machines, turns
from tests.e2e.bed.settings import (
    CORE,
    JUMP,
    MONGO,
    NETWORK,
    NEW,
    OLD,
    PREFIX,
    Machine,
    Project,
    Switch,
    cache,
    flavoured,
    switch,
)
from tests.e2e.bed.settings import machines as servers_of
from tests.e2e.bed.shell import docker, inside, wait_for

PATIENT = 'core_sees = "120s"\nagent_ready = "120s"'
"""Timing of a fleet on a machine that has other work."""
_ANSI = re.compile(r"\x1b\[[0-9;]*m")


@dataclass
class Bed:
    """A Komodo v1.19.5 fleet on this machine."""

    servers: tuple[Machine, ...]
    switch: Switch
    key: str
    project: Project = MONGO
    headers: dict[str, str] = field(default_factory=dict)
    extra: dict[str, list[str]] = field(default_factory=dict)
    """Additional flags of `docker run` per server."""
    began: float = field(default_factory=time.monotonic)

    @classmethod
    def build(cls, count: int = 6, project: Project = MONGO) -> Bed:
        """Build everything that takes long; start nothing."""
        began = time.monotonic()
        chosen, servers = switch(), servers_of(count)
        say = _sayer(began)
        with turns.building(say):
            ground.prepare()
            if not chosen.real_komodo or not chosen.real_tools:
                from tests.e2e.standins import pack

                pack.build(chosen)
            key = images.build_all(chosen, project, say)
            key = install.build_machines(servers, project, chosen, key, say)
        return cls(servers=servers, switch=chosen, project=project, key=key, began=began)

    def say(self, text: str) -> None:
        """Print a line of progress with the seconds since the beginning."""
        _sayer(self.began)(text)

    def up(self) -> None:
        """Start a fresh installation and wait until v1 Core reports every server as Ok."""
        machines.remove_machines()
        machines.network_up()
        machines.services_up()
        machines.start_jump()
        machines.start_servers(self.servers, self.extra)
        kept = install.Snapshot(self.project, len(self.servers))
        if not kept.good(self.key):
            self.say("installing Core")
            install.install_core(self.switch, self.project)
            self.headers = install.seed(self.servers)
            self.wait_ok(OLD)
            kept.take(self.headers, self.key)
            machines.remove_machines()
            self.up()
            return
        self.headers = kept.restore()
        self.wait_ok(OLD)
        self.say(f"bed is up: {len(self.servers)} servers and Core, {self.switch}")

    def down(self) -> None:
        """Remove everything except images and caches. Raises RuntimeError if something remains."""
        machines.remove_all()
        left = machines.left_over()
        if left:
            raise RuntimeError(f"left over of the bed: {', '.join(left)}")
        ground.stop_own_engine()

    # --- state --------------------------------------------------------------------------------------------------------

    def server(self, name: str) -> Machine:
        """The server of this name."""
        return next(s for s in self.servers if s.name == name)

    def wait_ok(self, version: str, seconds: float = 120) -> None:
        """Wait until Core reports every server as Ok with this version."""
        count = len(self.servers)
        try:
            wait_for("Core's Ok", lambda: install.all_ok(self.headers, version, count), seconds=seconds, pause=0.5)
        except TimeoutError as error:
            raise TimeoutError(f"{error} Servers: {self.states()}") from error

    def states(self) -> dict[str, tuple[str, str]]:
        """Server -> (state, version) as Core reports them."""
        return install.states(self.headers)

    def updates(self) -> list[Any]:
        """Core's Updates; v1 fails here on a database that v2 has touched."""
        found: list[Any] = install.post("read/ListUpdates", {"page": 0}, self.headers)["updates"]
        return found

    def on(self, name: str, *words: str, check: bool = True, data: str | None = None, timeout: float = 120) -> str:
        """A command as root on a machine ("core", "web-1", …)."""
        return inside(PREFIX + name, *words, check=check, data=data, timeout=timeout)

    def agent_version(self, name: str) -> str:
        """The version that the agent's binary reports."""
        return self.on(name, self.server(name).binary, "--version").rpartition(" ")[2]

    def agent_log(self, name: str, *, this_run: bool = True) -> str:
        """The agent's journal, of the running process or of all processes."""
        words = ["journalctl", "-u", "periphery", "-o", "cat", "--no-pager"]
        if this_run:
            words.append(f"_SYSTEMD_INVOCATION_ID={self.show(name, 'InvocationID')}")
        return _ANSI.sub("", self.on(name, *words))

    def show(self, name: str, field_name: str) -> str:
        """A property of the agent's unit."""
        return self.on(name, "systemctl", "show", "-p", field_name, "--value", "periphery")

    def core_log(self) -> str:
        """Both streams of Core's container."""
        return _ANSI.sub("", self.on("core", "sh", "-c", f"docker logs {self.project.core} 2>&1"))

    def core_image(self) -> str:
        """The image reference Core's container runs."""
        return self.on("core", "docker", "inspect", "-f", "{{.Config.Image}}", self.project.core)

    def starts(self, name: str, version: str) -> int:
        """How often an agent of this version has started, ever."""
        return self.agent_log(name, this_run=False).count(f"Komodo Periphery version: v{version}")

    def jobs(self, name: str, fleet: str) -> list[str]:
        """Jobs that the tool started on a host: `<target>/<attempt>/<step>` below the newest run folder."""
        script = (
            f"cd /var/lib/komodo-upgrade/{fleet} 2>/dev/null || exit 0; "
            'cd "$(ls -d 2* | tail -1)/jobs" 2>/dev/null && find . -mindepth 3 -maxdepth 3 -type d'
        )
        return sorted(line.removeprefix("./") for line in self.on(name, "sh", "-c", script, check=False).split())

    def run_folder(self, name: str, fleet: str) -> str:
        """The newest run's folder on a host."""
        return self.on(name, "sh", "-c", f"ls -d /var/lib/komodo-upgrade/{fleet}/2* | tail -1")

    def configs(self) -> dict[str, str]:
        """Server -> the content of its configuration file."""
        return {s.name: self.on(s.name, "cat", "/etc/komodo/periphery.config.toml") for s in self.servers}

    # --- the fleet file -----------------------------------------------------------------------------------------------

    def write_access(
        self, folder: Path, *, target: str = NEW, rollout: str = "", timing: str = "", more: str = ""
    ) -> Path:
        """Write fleet.toml and the files that it names; `more` holds further tables. Returns its path."""
        folder.mkdir(parents=True, exist_ok=True)
        secret = install.secrets()
        for name, value in (("api_key", self.headers["X-Api-Key"]), ("api_secret", self.headers["X-Api-Secret"]),
                            ("sudo_password", secret.sudo_password),
                            ("id_ed25519", (cache() / "keys/id_ed25519").read_text())):  # fmt: skip
            file = folder / name
            file.touch(mode=0o600)
            file.write_text(value if name == "id_ed25519" else f"{value}\n")
        known = [(CORE, "core"), (JUMP, "jump"), *((s.address, s.name) for s in self.servers)]
        lines = [f"{ip} {' '.join(images.host_key(name)[1].split()[:2])}\n" for ip, name in known]
        (folder / "known_hosts").write_text("".join(lines))
        file = folder / "fleet.toml"
        file.write_text(f"{self._fleet(target, rollout, timing)}\n{more}")
        return file

    def _fleet(self, target: str, rollout: str, timing: str) -> str:
        asset = flavoured("www") / f"github.com/moghtech/komodo/releases/download/v{target}/periphery-x86_64"
        digest = f'x86_64 = "{hashlib.sha256(asset.read_bytes()).hexdigest()}"' if asset.exists() else ""
        text = f"""[fleet]
name = "bed"
target = "{target}"

[ssh]
user = "ops"
key_files = ["id_ed25519"]
known_hosts = "known_hosts"
ssh_config = "none"

[core]
host = "{CORE}"
api_key_file = "api_key"
api_secret_file = "api_secret"

[rollout]
{rollout or "wave = 2"}

[agent]
sha256 = {{ {digest} }}

[timing]
{timing or PATIENT}
"""
        for server in self.servers:
            text += f'\n[[server]]\nname = "{server.name}"\nhost = "{server.address}"\n'
            if server.sudo_password:
                text += 'sudo = { password_file = "sudo_password" }\n'
            if server.jump:
                text += f'jump = "ops@{JUMP}"\n'
        return text

    # --- failures -----------------------------------------------------------------------------------------------------

    def site(self, knob: str, value: str | None) -> None:
        """Set `fail`, `kib_per_second` or `wrong` of the download site; None removes it."""
        file = flavoured("www") / knob
        if value is None:
            file.unlink(missing_ok=True)
        else:
            file.write_text(value)
            file.chmod(0o644)

    def registry(self, *, running: bool) -> None:
        """Stop or start the registry."""
        docker("start" if running else "stop", f"{PREFIX}registry")

    def link(self, name: str, *, up: bool) -> None:
        """Disconnect a host from the network, or connect it."""
        if up:
            address = CORE if name == "core" else self.server(name).address
            docker("network", "connect", "--ip", address, NETWORK, PREFIX + name)
        else:
            docker("network", "disconnect", NETWORK, PREFIX + name)

    def wall(self, name: str, *, up: bool) -> None:
        """Block the connection from Core to a server's agent, or allow it; SSH is not blocked."""
        rule = ("-d", self.server(name).address, "-p", "tcp", "--dport", "8120", "-j", "DROP")
        for chain in ("FORWARD", "OUTPUT"):
            self.on("core", "iptables", "-I" if up else "-D", chain, *rule, check=up)

    def reboot(self, name: str) -> None:
        """Reboot from inside and wait until the reboot has begun, not until the machine is back."""
        before = docker("inspect", "-f", "{{.State.StartedAt}}", PREFIX + name)
        self.on(name, "systemctl", "reboot", check=False)
        wait_for(
            "the reboot", lambda: docker("inspect", "-f", "{{.State.StartedAt}}", PREFIX + name) != before, seconds=60
        )


def _sayer(began: float) -> images.Say:
    return lambda text: print(f"[{time.monotonic() - began:6.1f} s] {text}", file=sys.stderr, flush=True)
