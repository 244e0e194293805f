"""Agents of other hosts in containers, in the shapes that people have: written by ourselves.

own: a project of its own, settings in `environment:` (v1.19.5:compose/periphery.compose.yaml).
shared: a service among others in a project of two files, with `.env` and `env_file:`.
config: settings in a mounted periphery.config.toml; started by docker-compose 1.29 with a file name as typed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from sandbox.seed_files import Secrets

_OWN = """services:
  periphery:
    image: ghcr.io/moghtech/komodo-periphery:${COMPOSE_KOMODO_IMAGE_TAG:-latest}
    labels:
      komodo.skip: # never stopped by StopAllContainers
    restart: unless-stopped
    environment:
      PERIPHERY_ROOT_DIRECTORY: ${PERIPHERY_ROOT_DIRECTORY:-/etc/komodo}
      ## the passkey of Core
      PERIPHERY_PASSKEYS: "{passkey}"
    volumes:
      - /var/run/docker.sock:/var/run/docker.sock
      - /proc:/proc
      - ${PERIPHERY_ROOT_DIRECTORY:-/etc/komodo}:${PERIPHERY_ROOT_DIRECTORY:-/etc/komodo}
    ports:
      - 8120:8120
"""

_SHARED = """services:
  web:
    image: nginx:1.29
    restart: always
  agent:
    image: ghcr.io/moghtech/komodo-periphery:{tag}
    container_name: komodo-agent
    restart: unless-stopped
    env_file: agent.env
    volumes:
      - /var/run/docker.sock:/var/run/docker.sock
      - /proc:/proc
      - ${AGENT_ROOT}:${AGENT_ROOT}
"""

_SHARED_PORTS = """services:
  agent:
    ports:
      - "8120:8120"
"""

_CONFIG = """version: "3"
services:
  periphery:
    image: ghcr.io/moghtech/komodo-periphery:{tag}
    restart: always
    command: periphery --config-path /conf/periphery.config.toml
    volumes:
      - /var/run/docker.sock:/var/run/docker.sock
      - ./periphery.config.toml:/conf/periphery.config.toml
    ports:
      - 8120:8120
"""


@dataclass(frozen=True, slots=True)
class Seeded:
    """Where a project lies below the host's root, and how it is started."""

    folder: str
    words: tuple[str, ...]
    service: str
    files: Mapping[str, str] = field(default_factory=dict)
    """File name → text."""
    old_compose: bool = False
    images: tuple[str, ...] = ()


def seeded(shape: str, *, version: str, root: Path, secrets: Secrets) -> Seeded:
    """The files of a shape. `version` of its agent."""
    tag = "latest" if version == "1.19.5" else version
    images = (f"ghcr.io/moghtech/komodo-periphery:{tag}",)
    if shape == "own":
        text = _OWN.replace("{passkey}", secrets.passkey).replace("/etc/komodo", f"{root}/etc/komodo")
        files = {"periphery.compose.yaml": text}
        if tag != "latest":
            files[".env"] = f"COMPOSE_KOMODO_IMAGE_TAG={tag}\n"
        return Seeded(
            "opt/periphery", ("-p", "periphery", "-f", "periphery.compose.yaml"), "periphery", files, images=images
        )
    if shape == "shared":
        files = {
            "compose.yaml": _SHARED.replace("{tag}", tag),
            "ports.yaml": _SHARED_PORTS,
            ".env": f"AGENT_ROOT={root}/srv/komodo\n",
            "agent.env": f"PERIPHERY_PASSKEYS={secrets.passkey}\n",
        }
        return Seeded(
            "srv/stack", ("-f", "compose.yaml", "-f", "ports.yaml"), "agent", files, images=(*images, "nginx:1.29")
        )
    if shape == "config":
        config = f'port = 8120\npasskeys = ["{secrets.passkey}"]\n'
        files = {"docker-compose.yml": _CONFIG.replace("{tag}", tag), "periphery.config.toml": config}
        return Seeded("opt/agent", ("-f", "docker-compose.yml"), "periphery", files, old_compose=True, images=images)
    raise ValueError(f"no such shape: {shape}")


def write(root: Path, project: Seeded) -> Path:
    """Write the project. Returns its folder."""
    folder = root / project.folder
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in project.files.items():
        (folder / name).write_text(text)
    return folder
