"""The installation before an upgrade: agents under systemd, Core in Compose, some content. Cached as a snapshot."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sandbox import seed_files
from sandbox.seed_files import Secrets, write_agent, write_project
from tests.e2e.bed import images
from tests.e2e.bed.machines import CORE_NAME, CORE_VOLUME, start_core, wait_booted
from tests.e2e.bed.settings import CORE, FILES, JUMP, MONGO, OLD, PLACE, Machine, Project, Switch, cache
from tests.e2e.bed.shell import docker, inside, run, wait_for

URL = f"http://{CORE}:9120"


def secrets() -> Secrets:
    """The secrets of the installation, as the files need them."""
    return Secrets(**images.known_secrets())


# --- machines' images ---------------------------------------------------------------------------------------------


def build_machines(servers: tuple[Machine, ...], project: Project, switch: Switch, key: str, say: images.Say) -> str:
    """Build an image for every machine. Returns a key of their inputs."""
    agent = (switch.komodo / f"v{OLD}" / "periphery").read_bytes()
    keys = [key]
    for server in servers:
        keys.append(_machine(server.name, key, say, server=server, agent=agent, switch=switch))
    keys.append(_machine("jump", key, say))
    name = "core" if project.root == "machine" else f"core-{project.root}"
    keys.append(_machine(name, key, say, engine=True, host=images.host_image(project)))
    return hashlib.sha256("".join(keys).encode()).hexdigest()


def _machine(
    name: str, key: str, say: images.Say, *, server: Machine | None = None, agent: bytes = b"",
    switch: Switch | None = None, engine: bool = False, host: str = "kue-host:1",
) -> str:  # fmt: skip
    """Image `kue-server-<name>`."""
    setup = ["true"]
    if server:
        setup.append("systemctl enable periphery")
    if server and server.sudo_password:
        setup.append(
            f"echo 'ops:{secrets().sudo_password}' | chpasswd && echo 'ops ALL=(ALL) ALL' > /etc/sudoers.d/ops"
        )
    if server and server.jump:
        setup.append(f"echo 'AllowUsers ops@{JUMP}' >> /etc/ssh/sshd_config.d/kue.conf")
    if name == "jump":
        setup.append("rm /etc/sudoers.d/ops")

    def make() -> None:
        with images.context(f"machine-{name}") as folder:
            tree = folder / "tree"
            ssh = tree / "etc/ssh"
            ssh.mkdir(parents=True)
            private, public = images.host_key(name.partition("-old")[0])
            (ssh / "ssh_host_ed25519_key").write_text(private)
            (ssh / "ssh_host_ed25519_key.pub").write_text(public)
            if server:
                _agent_files(tree, server, agent, switch)
            images.build(f"kue-server-{name}:{PLACE}", "machine.Dockerfile", folder,
                         HOST=host, ENGINE="yes" if engine else "no", SETUP=" && ".join(setup))  # fmt: skip

    texts = [
        key,
        str(server),
        *setup,
        (FILES / "machine.Dockerfile").read_text(),
        Path(seed_files.__file__).read_text(),
    ]
    texts.append(hashlib.sha256(agent).hexdigest())
    official = switch.official / f"v{OLD}" if switch and switch.official else None
    texts += [p.read_text() for p in sorted(official.rglob("*.*")) if p.is_file()] if official else []
    return images.once(f"machine-{name}-{PLACE}", texts, images.image(f"kue-server-{name}:{PLACE}"), make, say)


def _agent_files(tree: Path, server: Machine, agent: bytes, switch: Switch | None) -> None:
    """Write binary, configuration and unit where the setup script of v1.19.5 puts them, or elsewhere by hand."""
    write_agent(tree, server.shape, binary=agent, core=CORE, secrets=secrets())
    shutil.rmtree(tree / "etc/komodo/ssl")  # a real agent creates its certificate itself
    shutil.rmtree(tree / "etc/systemd/system/default.target.wants")
    unit = tree / "etc/systemd/system/periphery.service"
    unit.write_text(unit.read_text().replace(str(tree), ""))
    official = switch.official / f"v{OLD}/config/periphery.config.toml" if switch and switch.official else None
    if official and server.shape != "edited":
        text = official.read_text()
        if server.shape == "plain":
            text, count = re.subn(r"^passkeys = \[\]", f'passkeys = ["{secrets().passkey}"]', text, flags=re.MULTILINE)
            assert count == 1, f"{official} has no line `passkeys = []`"
        (tree / "etc/komodo/periphery.config.toml").write_text(text)


# --- Core ---------------------------------------------------------------------------------------------------------


def write_core_project(folder: Path, switch: Switch, wanted: Project) -> None:
    """Write `opt/komodo` below `folder`: the official files with values, or files with the same structure."""
    write_project(folder, tag="latest", host=URL, interval="15-sec", secrets=secrets())
    project = folder / "opt/komodo"
    env = project / "compose.env"
    env.write_text(env.read_text().replace(str(folder), ""))
    if wanted.file != MONGO.file:
        (project / MONGO.file).unlink()
        shutil.copy2(FILES / wanted.file, project)
    if not switch.official:
        return
    official = switch.official / f"v{OLD}" / "compose"
    shutil.copy2(official / wanted.file, project)
    known = secrets()
    text = (official / "compose.env").read_text()
    for name, value in {
        "KOMODO_HOST": URL, "KOMODO_PASSKEY": known.passkey, "KOMODO_DB_USERNAME": "komodo",
        "KOMODO_DB_PASSWORD": known.db_password, "KOMODO_INIT_ADMIN_PASSWORD": known.admin_password,
        "KOMODO_WEBHOOK_SECRET": known.webhook_secret, "KOMODO_JWT_SECRET": known.jwt_secret,
    }.items():  # fmt: skip
        text, count = re.subn(rf"^{name}=.*$", f"{name}={value}", text, flags=re.MULTILINE)
        assert count == 1, f"the official compose.env has no line {name}="
    env.write_text(text)


def install_core(switch: Switch, project: Project) -> None:
    """Install Core on an empty machine as the user `ops`: copy the files, pull the images, start the project."""
    start_core(f"kue-server-core{'' if project.root == 'machine' else f'-{project.root}'}:{PLACE}")
    wait_booted(CORE_NAME)
    with images.context("project") as folder:
        write_core_project(folder, switch, project)
        docker("cp", f"{folder}/opt/komodo", f"{CORE_NAME}:/opt/komodo")
    inside(CORE_NAME, "sh", "-c", "chown -R ops:ops /opt/komodo && chmod 600 /opt/komodo/compose.env")
    wait_for("Core's engine", lambda: inside(CORE_NAME, "docker", "version", "-f", "{{.Server.Version}}"), seconds=60)
    compose = f"{project.command} -p komodo -f komodo/{project.file} --env-file komodo/compose.env"
    for command in ("pull", "up -d"):
        inside(CORE_NAME, "su", "ops", "-c", f"cd /opt && {compose} {command}", timeout=600)
    wait_for("Core v1 to answer", lambda: "local" in post("auth/GetLoginOptions", {}), seconds=120)


class ApiError(OSError):
    """Core answered with an error."""


def post(path: str, body: dict[str, Any], headers: dict[str, str] | None = None, timeout: float = 20) -> Any:
    """Call Core's API."""
    head = {"Content-Type": "application/json", **(headers or {})}
    request = urllib.request.Request(f"{URL}/{path}", json.dumps(body).encode(), head)
    try:
        with urllib.request.urlopen(request, timeout=timeout) as answer:
            return json.loads(answer.read() or b"null")
    except urllib.error.HTTPError as error:
        raise ApiError(f"{path}: HTTP {error.code}: {error.read()[:400]!r}") from None


ACTION = """// reports the free disk space of a server, in v1's form
await komodo.write("CreateTerminal", {{ server: "{server}", name: "disk", command: "bash", recreate: "Always" }});
await komodo.execute_terminal({{ server: "{server}", terminal: "disk", command: "df -h /" }}, {{
  onLine: (line) => console.log(line),
}});
"""


def seed(servers: tuple[Machine, ...]) -> dict[str, str]:
    """Create an API key, the servers and some content. Returns the headers of an API call."""
    login = post("auth/LoginLocalUser", {"username": "admin", "password": secrets().admin_password})
    key = post("user/CreateApiKey", {"name": "kue", "expires": 0}, {"Authorization": login["jwt"]})
    headers = {"X-Api-Key": key["key"], "X-Api-Secret": key["secret"]}
    for server in servers:
        config = {"address": f"https://{server.address}:8120", "enabled": True, "auto_prune": False}
        post("write/CreateServer", {"name": server.name, "config": config}, headers)
    post("write/CreateVariable", {"name": "GREETING", "value": "hello", "description": "", "is_secret": False}, headers)
    contents = {"file_contents": ACTION.format(server=servers[0].name)}
    post("write/CreateAction", {"name": "disk-report", "config": contents}, headers)
    return headers


def states(headers: dict[str, str]) -> dict[str, tuple[str, str]]:
    """Server -> (state, version) as Core reports them."""
    listed = post("read/ListServers", {"query": {}, "limit": 0}, headers)
    return {s["name"]: (s["info"]["state"], str(s["info"].get("version") or "").removeprefix("v")) for s in listed}


def all_ok(headers: dict[str, str], version: str, count: int) -> bool:
    """Whether every Server, including `Local`, is Ok with this version."""
    found = states(headers)
    return len(found) == count + 1 and all(state == ("Ok", version) for state in found.values())


# --- snapshot -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Core's machine after its installation: file system as an image, engine data and API key in a folder."""

    project: Project
    servers: int

    @property
    def folder(self) -> Path:
        """The folder of the snapshot."""
        return cache() / f"snapshot-{PLACE}-{self.project.name}-{self.servers}"

    @property
    def image(self) -> str:
        """The image of the machine."""
        return f"kue-snap-core:{PLACE}-{self.project.name}-{self.servers}"

    def take(self, headers: dict[str, str], key: str) -> None:
        """Take the snapshot; the machine is stopped for it."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True, mode=0o700)
        docker("update", "--restart", "no", CORE_NAME)
        docker("stop", "-t", "30", CORE_NAME)
        docker("commit", CORE_NAME, self.image)
        run("cp", "-a", docker("volume", "inspect", "-f", "{{.Mountpoint}}", CORE_VOLUME), self.folder / "docker")
        (self.folder / "headers.json").write_text(json.dumps(headers))
        (self.folder / "key").write_text(f"{key}\n{images.image(self.image)()}")

    def good(self, key: str) -> bool:
        """Whether the snapshot is complete and was taken from the same inputs."""
        file = self.folder / "key"
        return file.exists() and file.read_text() == f"{key}\n{images.image(self.image)()}"

    def restore(self) -> dict[str, str]:
        """Start the machine from the snapshot. Returns the headers of an API call."""
        docker("volume", "create", CORE_VOLUME)
        place = Path(docker("volume", "inspect", "-f", "{{.Mountpoint}}", CORE_VOLUME))
        place.rmdir()
        run("cp", "-a", self.folder / "docker", place)
        start_core(self.image)
        found: dict[str, str] = json.loads((self.folder / "headers.json").read_text())
        return found
