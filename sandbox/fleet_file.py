"""fleet.toml, known_hosts, the SSH key and the secret files of a simulated fleet."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import asyncssh

from sandbox.keys import write_secret
from sandbox.machine.host import SandboxHost
from sandbox.releases import binary
from sandbox.seed_files import Secrets


def write(
    folder: Path,
    hosts: dict[str, SandboxHost],
    base: str,
    client_key: asyncssh.SSHKey,
    host_keys: dict[str, asyncssh.SSHKey],
    secrets: Secrets,
    api_key: str,
    *,
    target: str,
) -> None:
    """Write what a client needs to reach and upgrade the fleet. `base`: address of the release site."""
    write_secret(folder / "id_ed25519", client_key.export_private_key())
    store = folder / "secrets"
    store.mkdir(mode=0o700, exist_ok=True)
    for name, value in (
        ("api_key", api_key),
        ("api_secret", secrets.api_secret),
        ("sudo_password", secrets.sudo_password),
    ):
        write_secret(store / name, value.encode() + b"\n")
    lines = []
    for name, host in hosts.items():
        public = host_keys[name].export_public_key().decode().split()
        lines.append(f"[{host.address}]:{host.port} {public[0]} {public[1]}\n")
    (folder / "known_hosts").write_text("".join(lines))
    new = folder / "fleet.toml.new"
    new.write_text(_text(hosts, base, target))
    os.replace(new, folder / "fleet.toml")  # noqa: PTH105


def _text(hosts: dict[str, SandboxHost], base: str, target: str) -> str:
    core = hosts["core"]
    digests = ", ".join(
        f'{arch} = "{hashlib.sha256(binary(target, arch)).hexdigest()}"' for arch in ("x86_64", "aarch64")
    )
    text = f"""# A simulated fleet (python -m sandbox). Everything in it is on loopback.

[fleet]
name = "sandbox"
target = "{target}"

[ssh]
user = "{core.user}"
key_files = ["id_ed25519"]
known_hosts = "known_hosts"
ssh_config = "none"
sudo = "passwordless"
connect_timeout = "5s"

[core]
host = "{core.address}"
port = {core.port}
state_dir = "{core.root}/var/lib/komodo-upgrade"
api_key_file = "secrets/api_key"
api_secret_file = "secrets/api_secret"

[rollout]
canary = 1
wave = 2

[agent]
url = "{base}/releases/download/v{{version}}/periphery-{{arch}}"
sha256 = {{ {digests} }}

[watch]
lasts = "off"
backup_within = "off"

[timing]
core_ready = "20s"
agent_ready = "10s"
core_sees = "20s"
poll = "200ms"
update_wait = "10s"
heartbeat = "5s"
retry = "6s"
dump = "1m"
download = "1m"
"""
    for name, host in hosts.items():
        if name == "core":
            continue
        text += f"""
[[server]]
name = "{name}"
host = "{host.address}"
port = {host.port}
state_dir = "{host.root}/var/lib/komodo-upgrade"
"""
        if host.sudo == "password":
            text += 'sudo = { password_file = "secrets/sudo_password" }\n'
    return text
