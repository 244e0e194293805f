"""`docker inspect` entries as Docker 24 and docker-compose 1.29 write them, cut to what can matter."""

from __future__ import annotations

import json
from typing import Any

V2_LABELS = {
    "com.docker.compose.config-hash": "5e1ddfc0",
    "com.docker.compose.container-number": "1",
    "com.docker.compose.oneoff": "False",
    "com.docker.compose.project": "komodo",
    "com.docker.compose.project.config_files": "/opt/komodo/mongo.compose.yaml",
    "com.docker.compose.project.environment_file": "/opt/komodo/compose.env",
    "com.docker.compose.project.working_dir": "/opt/komodo",
    "com.docker.compose.version": "2.24.5",
}
V1_LABELS = {
    "com.docker.compose.config-hash": "5e1ddfc0",
    "com.docker.compose.container-number": "1",
    "com.docker.compose.oneoff": "False",
    "com.docker.compose.project": "komodo",
    "com.docker.compose.project.config_files": "komodo/mongo.compose.yaml",
    "com.docker.compose.project.working_dir": "/opt/komodo",
    "com.docker.compose.version": "1.29.2",
}
CORE_ENV = {
    "PATH": "/usr/bin",
    "KOMODO_DATABASE_ADDRESS": "mongo:27017",
    "KOMODO_DATABASE_USERNAME": "admin",
    "KOMODO_DATABASE_PASSWORD": "s3cr:t/=x",
    "KOMODO_HOST": "https://demo.komo.do",
    "KOMODO_PASSKEY": "a_random_passkey",
    "TZ": "Etc/UTC",
    "KOMODO_MONITORING_INTERVAL": "15-sec",
}


def entry(
    name: str,
    image: str,
    *,
    service: str = "",
    labels: dict[str, str] | None = None,
    env: dict[str, str] | None = None,
    networks: dict[str, tuple[str, list[str]]] | None = None,
    mounts: list[dict[str, Any]] | None = None,
    ports: dict[str, list[dict[str, str]]] | None = None,
    running: bool = True,
    network_mode: str = "komodo_default",
) -> dict[str, Any]:
    labelled = dict(V2_LABELS if labels is None else labels)
    if labelled and service:
        labelled["com.docker.compose.service"] = service
    wired = {"komodo_default": ("172.18.0.9", [service or name])} if networks is None else networks
    return {
        "Id": (name.encode().hex() * 8)[:64].ljust(64, "0"),
        "Name": f"/{name}",
        "Image": "sha256:" + (image.encode().hex() * 4)[:64].ljust(64, "1"),
        "RestartCount": 0,
        "Args": [],
        "State": {
            "Status": "running" if running else "exited",
            "Running": running,
            "ExitCode": 0,
            "StartedAt": "2026-11-23T20:00:00.123456789Z",
        },
        "HostConfig": {"Init": None, "NetworkMode": network_mode, "PortBindings": ports or {}},
        "Config": {
            "Image": image,
            "Env": [f"{k}={v}" for k, v in (env or {}).items()],
            "Labels": labelled,
            "Cmd": None,
            "Entrypoint": None,
        },
        "NetworkSettings": {
            "Networks": {n: {"Aliases": a, "IPAddress": ip if running else ""} for n, (ip, a) in wired.items()}
        },
        "Mounts": mounts or [],
    }


def volume(name: str, destination: str) -> dict[str, Any]:
    return {
        "Type": "volume",
        "Name": name,
        "Source": f"/var/lib/docker/volumes/{name}/_data",
        "Destination": destination,
        "Driver": "local",
        "Mode": "z",
        "RW": True,
    }


def bind(source: str, destination: str) -> dict[str, Any]:
    return {"Type": "bind", "Source": source, "Destination": destination, "Mode": "rw", "RW": True}


def official(labels: dict[str, str] | None = None) -> list[dict[str, Any]]:
    """The official mongo.compose.yaml of v1.19.5, up and running."""
    one = V2_LABELS if labels is None else labels
    return [
        entry(
            "komodo-core-1",
            "ghcr.io/moghtech/komodo-core:latest",
            service="core",
            labels=one,
            env=CORE_ENV,
            networks={"komodo_default": ("172.18.0.3", ["komodo-core-1", "core"])},
            mounts=[bind("/etc/komodo/backups", "/backups")],
            ports={"9120/tcp": [{"HostIp": "", "HostPort": "9120"}]},
        ),
        entry(
            "komodo-mongo-1",
            "mongo",
            service="mongo",
            labels=one,
            networks={"komodo_default": ("172.18.0.2", ["komodo-mongo-1", "mongo"])},
            mounts=[volume("komodo_mongo-data", "/data/db")],
        ),
        entry(
            "komodo-periphery-1",
            "ghcr.io/moghtech/komodo-periphery:latest",
            service="periphery",
            labels=one,
            env={"PERIPHERY_ROOT_DIRECTORY": "/etc/komodo", "PERIPHERY_PASSKEYS": "a_random_passkey"},
            networks={"komodo_default": ("172.18.0.4", ["komodo-periphery-1", "periphery"])},
        ),
        entry("web-nginx-1", "nginx:1.27", labels={}, networks={"web": ("172.20.0.2", ["nginx"])}),
    ]


def text(entries: list[dict[str, Any]]) -> str:
    return json.dumps(entries)
