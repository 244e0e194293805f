"""A simulated registry and the images of one engine, in Docker's JSON shapes.

`latest` of Komodo's images stays at 1.19.5 for ever, as on ghcr.io; `2`, `2.3` and so on move (upgrade guide).
"""

from __future__ import annotations

import hashlib
import platform
from dataclasses import dataclass, field
from typing import Any

KOMODO = ("1.18.4", "1.19.4", "1.19.5", "2.0.0", "2.3.1", "2.3.2", "2.3.3")
_OTHERS = {
    "mongo": {"latest": "8.0.15", "8": "8.0.15", "8.0": "8.0.15", "7": "7.0.25"},
    "ghcr.io/ferretdb/ferretdb": {"latest": "2.7.0", "2": "2.7.0", "2.7.0": "2.7.0"},
    "ghcr.io/ferretdb/postgres-documentdb": {"latest": "17", "17": "17"},
    "busybox": {"latest": "1.37.0"},
    "nginx": {"latest": "1.29.3", "1.29": "1.29.3"},
}
_CREATED = {
    "1.18.4": "2025-06-28T21:12:55.123456789Z",
    "1.19.4": "2025-09-14T02:11:05.123456789Z",
    "1.19.5": "2025-09-27T17:45:31.123456789Z",
    "2.0.0": "2026-03-24T10:20:30.123456789Z",
    "2.3.1": "2026-07-31T10:20:30.123456789Z",
    "2.3.2": "2026-08-11T10:20:30.123456789Z",
    "2.3.3": "2026-09-02T10:20:30.123456789Z",
}


def _tags(version: str) -> list[str]:
    """Moving tags that point at a version."""
    major, minor = version.split(".")[:2]
    newest_minor = [v for v in KOMODO if v.startswith(f"{major}.{minor}.")][-1] == version
    newest_major = [v for v in KOMODO if v.startswith(f"{major}.")][-1] == version
    tags = [version]
    if newest_minor:
        tags.append(f"{major}.{minor}")
    if newest_major and major != "1":
        tags.append(major)
    if version == "1.19.5":
        tags.append("latest")
    return tags


def catalogue() -> dict[str, dict[str, str]]:
    """repository -> tag -> version."""
    tags = {tag: version for version in KOMODO for tag in _tags(version)}
    found = {f"ghcr.io/moghtech/komodo-{kind}": dict(tags) for kind in ("core", "periphery")}
    return {**found, **{k: dict(v) for k, v in _OTHERS.items()}}


def split(reference: str) -> tuple[str, str, str]:
    """(repository, tag, digest) of a reference as people write it; the tag defaults to latest."""
    name, _, digest = reference.partition("@")
    head, _, last = name.rpartition("/")
    last, _, tag = last.partition(":")
    repository = f"{head}/{last}" if head else last
    repository = repository.removeprefix("docker.io/").removeprefix("library/")
    return repository, tag or ("" if digest else "latest"), digest


def digest_of(repository: str, version: str) -> str:
    """Of the manifest in the registry."""
    return "sha256:" + hashlib.sha256(f"manifest {repository} {version}".encode()).hexdigest()


@dataclass(slots=True)
class Image:
    """One image on an engine."""

    repository: str
    version: str
    tags: set[str] = field(default_factory=set)

    @property
    def id(self) -> str:
        """Digest of its config."""
        return "sha256:" + hashlib.sha256(f"config {self.repository} {self.version}".encode()).hexdigest()

    @property
    def digest(self) -> str:
        """Of its manifest."""
        return digest_of(self.repository, self.version)

    @property
    def program(self) -> str:
        """core | periphery | mongo | other"""
        last = self.repository.rpartition("/")[2]
        known = {"komodo-core": "core", "komodo-periphery": "periphery", "mongo": "mongo", "ferretdb": "mongo"}
        return known.get(last, "other")

    @property
    def ferretdb(self) -> bool:
        """Speaks MongoDB's protocol, keeps everything in PostgreSQL, and has no tools in its image."""
        return self.repository.endswith("/ferretdb")

    def config(self) -> dict[str, Any]:
        """What the image brings along: environment, entry point, labels."""
        v2 = self.version.startswith("2.")
        path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        source = "https://github.com/moghtech/komodo"
        if self.program == "core":
            labels = {"org.opencontainers.image.source": source, "org.opencontainers.image.licenses": "GPL-3.0",
                      "org.opencontainers.image.description": "Komodo Core"}  # fmt: skip
            return {
                "Env": [path, "DENO_DIR=/action-cache/deno", "KOMODO_CLI_CONFIG_PATHS=/config"],
                "Cmd": ["core"],
                "Entrypoint": ["entrypoint.sh"] if v2 else None,
                "ExposedPorts": {"9120/tcp": {}},
                "WorkingDir": "/app",
                "Labels": {**labels, **({"komodo.skip": "true"} if v2 else {})},
            }
        if self.program == "periphery":
            keys = ["PERIPHERY_CONFIG_PATHS=/config", "PERIPHERY_PRIVATE_KEY=file:/config/keys/periphery.key"]
            labels = {"org.opencontainers.image.source": source, "org.opencontainers.image.licenses": "GPL-3.0",
                      "org.opencontainers.image.description": "Komodo Periphery"}  # fmt: skip
            return {
                "Env": [path, *(keys if v2 else [])],
                "Cmd": ["periphery"],
                "Entrypoint": ["entrypoint.sh"] if v2 else None,
                "ExposedPorts": {"8120/tcp": {}},
                "WorkingDir": "",
                "Labels": {**labels, **({"komodo.skip": "true"} if v2 else {})},
            }
        if self.ferretdb:
            return {"Env": [path], "Cmd": [], "Entrypoint": ["/ferretdb"], "ExposedPorts": {"27017/tcp": {}},
                    "WorkingDir": "/", "Labels": {}}  # fmt: skip
        if self.program == "mongo":
            return {
                "Env": [path, "GOSU_VERSION=1.19", "JSYAML_VERSION=3.13.1", "MONGO_PACKAGE=mongodb-org",
                        f"MONGO_MAJOR={self.version[:3]}", f"MONGO_VERSION={self.version}", "HOME=/data/db"],
                "Cmd": ["mongod"],
                "Entrypoint": ["docker-entrypoint.sh"],
                "ExposedPorts": {"27017/tcp": {}},
                "WorkingDir": "",
                "Labels": {"org.opencontainers.image.version": "24.04"},
            }  # fmt: skip
        return {"Env": [path], "Cmd": ["sh"], "Entrypoint": None, "ExposedPorts": {}, "WorkingDir": "", "Labels": {}}

    def inspect(self) -> dict[str, Any]:
        """As `docker image inspect` shows it."""
        arch = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
        config = self.config()
        config["Labels"] = config["Labels"] or None
        return {
            "Id": self.id,
            "RepoTags": sorted(f"{self.repository}:{tag}" for tag in self.tags),
            "RepoDigests": [f"{self.repository}@{self.digest}"],
            "Parent": "",
            "Comment": "buildkit.dockerfile.v0",
            "Created": _CREATED.get(self.version, "2026-01-05T07:08:09.123456789Z"),
            "DockerVersion": "",
            "Author": "",
            "Config": config,
            "Architecture": arch,
            "Os": "linux",
            "Size": 301_455_121 if self.program == "core" else 211_455_121,
            "GraphDriver": {"Data": None, "Name": "overlay2"},
            "RootFS": {"Type": "layers", "Layers": [self.digest]},
            "Metadata": {"LastTagTime": "0001-01-01T00:00:00Z"},
        }


class ImageStore:
    """Images of one engine."""

    def __init__(self) -> None:
        self.images: dict[str, Image] = {}
        self.registry = catalogue()

    def find(self, reference: str) -> Image | None:
        """By reference, digest, or (short) id."""
        bare = reference.removeprefix("sha256:")
        for image in self.images.values():
            hexes = image.id.removeprefix("sha256:")
            if len(bare) >= 12 and hexes.startswith(bare):
                return image
        repository, tag, digest = split(reference)
        for image in self.images.values():
            if image.repository == repository and (digest == image.digest if digest else tag in image.tags):
                return image
        return None

    def published(self, reference: str) -> Image | None:
        """What the registry has under a reference."""
        repository, tag, digest = split(reference)
        versions = self.registry.get(repository, {})
        if digest:
            version = next((v for v in versions.values() if digest_of(repository, v) == digest), None)
        else:
            version = versions.get(tag)
        return Image(repository, version, {tag} if tag and not digest else set()) if version else None

    def add(self, image: Image) -> tuple[Image, bool]:
        """Store a pulled image: (the stored one, whether it is new). Its tags move away from older images."""
        for other in self.images.values():
            if other.repository == image.repository and other.id != image.id:
                other.tags -= image.tags
        known = self.images.get(image.id)
        if known is not None:
            new = not image.tags <= known.tags
            known.tags |= image.tags
            return known, new
        self.images[image.id] = image
        return image, True

    def tag(self, image: Image, reference: str) -> None:
        """`docker tag`, within one repository."""
        _, tag, _ = split(reference)
        for other in self.images.values():
            if other.repository == image.repository:
                other.tags.discard(tag)
        image.tags.add(tag)
