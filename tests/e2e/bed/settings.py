"""Names, addresses and programs of the test bed."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
"""The root of the checkout."""
FILES = Path(__file__).parent / "files"
BED = os.environ.get("KUE_BED", "")
"""The name of this test bed among several on one engine; each needs its own address range in KUE_NET."""
PREFIX = f"kue{BED}-"
"""The prefix of every container, volume and network of the test bed; nothing else is removed."""
NETWORK = f"{PREFIX}net"
BRIDGE = f"br-kue{BED}"[:15]
SUBNET = os.environ.get("KUE_NET") or "172.31.88"
REGISTRY, WEB, JUMP, CORE = f"{SUBNET}.2", f"{SUBNET}.3", f"{SUBNET}.5", f"{SUBNET}.10"
OLD, MIDDLE, NEW = "1.19.5", "2.0.0", "2.3.2"
VERSIONS = (OLD, MIDDLE, NEW)
TAGS = {
    OLD: ("1.19.5", "1.19", "1", "latest"),
    MIDDLE: ("2.0.0",),
    NEW: ("2.3.2", "2.3", "2"),
}
"""Tags in the registry, including moving ones: `latest` is a v1."""
REGISTRY_NAMES = ("ghcr.io", "registry-1.docker.io", "auth.docker.io", "index.docker.io")
WEB_NAMES = ("github.com", "raw.githubusercontent.com", "api.github.com", "objects.githubusercontent.com")

FLAVOUR = ("real" if os.environ.get("KOMODO_BIN") else "ours") + ("" if os.environ.get("MONGO_TOOLS") else "-dump")
"""The kind of programs: images, registry, site and snapshot of each kind are cached separately."""
PLACE = f"{FLAVOUR}-{BED}" if BED else FLAVOUR
"""The suffix of everything that contains addresses of the test bed: the machines' images, the snapshot."""


@dataclass(frozen=True, slots=True)
class Machine:
    """A server with an agent under systemd."""

    name: str
    address: str
    shape: str
    """plain | open (`passkeys = []`) | edited (by hand: drop-in, binary in another place)"""
    sudo_password: bool = False
    jump: bool = False
    """Its sshd accepts only connections from the jump host."""

    @property
    def container(self) -> str:
        """The name of its container."""
        return PREFIX + self.name

    @property
    def binary(self) -> str:
        """The path of its agent's binary."""
        return "/opt/periphery/bin/periphery" if self.shape == "edited" else "/usr/local/bin/periphery"


_NAMED = (
    Machine("web-1", f"{SUBNET}.21", "plain"),
    Machine("db-1", f"{SUBNET}.22", "plain", sudo_password=True),
    Machine("nas", f"{SUBNET}.23", "open"),
    Machine("build-1", f"{SUBNET}.24", "edited"),
    Machine("web-2", f"{SUBNET}.25", "plain", sudo_password=True),
    Machine("far-1", f"{SUBNET}.26", "plain", jump=True),
)


def machines(count: int) -> tuple[Machine, ...]:
    """`count` servers: six of different kinds, then plain ones."""
    more = (Machine(f"srv-{n:02}", f"{SUBNET}.{20 + n}", "plain") for n in range(len(_NAMED) + 1, count + 1))
    return (*_NAMED[:count], *more)


@dataclass(frozen=True, slots=True)
class Project:
    """How Core was installed on its machine."""

    name: str = "mongo"
    file: str = "mongo.compose.yaml"
    command: str = "docker compose"

    @property
    def core(self) -> str:
        """The name of Core's container."""
        return "komodo_core_1" if self.command == "docker-compose" else "komodo-core-1"

    @property
    def root(self) -> str:
        """The root file system of its machine."""
        return "old" if self.command == "docker-compose" else "machine"


MONGO = Project()
OLD_COMPOSE = Project("compose1", command="docker-compose")
"""docker-compose 1.29, as Debian 12 has it, and no plugin."""
FERRETDB = Project("ferretdb", "ferretdb.compose.yaml")
"""The real FerretDB v2 instead of MongoDB."""


class Missing(RuntimeError):
    """This machine lacks something. The message names it; nothing is skipped."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Switch:
    """Which Komodo and which dump tools to use: real ones from folders, or this project's stand-ins."""

    komodo: Path
    tools: Path
    real_komodo: bool
    real_tools: bool
    official: Path | None
    """Komodo's official Compose and configuration files, one folder per tag; None: files with the same structure."""

    def __str__(self) -> str:
        komodo = f"real Komodo ({self.komodo})" if self.real_komodo else "Komodo's stand-ins"
        tools = f"real dump tools ({self.tools})" if self.real_tools else "the dump tools' stand-ins"
        files = f"official files ({self.official})" if self.official else "compose files in the official ones' shape"
        return f"{komodo}, {tools}, {files}"


def cache() -> Path:
    """The folder for root file systems, parts of images and snapshots, or $KUE_CACHE."""
    return Path(os.environ.get("KUE_CACHE") or "~/.cache/komodo-upgrade-test").expanduser()


def switch() -> Switch:
    """Read KOMODO_BIN, MONGO_TOOLS and KOMODO_FILES. Raises Missing if a named folder lacks something."""
    komodo, tools = os.environ.get("KOMODO_BIN", ""), os.environ.get("MONGO_TOOLS", "")
    if komodo:
        for version in VERSIONS:
            for program in ("core", "periphery", "km"):
                _want(Path(komodo).expanduser() / f"v{version}" / program, "KOMODO_BIN")
    if tools:
        for program in ("mongodump", "mongorestore"):
            _want(Path(tools).expanduser() / program, "MONGO_TOOLS")
    named = os.environ.get("KOMODO_FILES", "")
    official = Path(named).expanduser().resolve() if named else None
    if official:
        _want(official / f"v{OLD}" / "compose" / "mongo.compose.yaml", "KOMODO_FILES")
    return Switch(
        komodo=Path(komodo).expanduser().resolve() if komodo else cache() / "standins",
        tools=Path(tools).expanduser().resolve() if tools else cache() / "standins" / "tools",
        real_komodo=bool(komodo),
        real_tools=bool(tools),
        official=official,
    )


def flavoured(name: str) -> Path:
    """A folder of the cache that depends on the kind of programs."""
    return cache() / f"{name}-{FLAVOUR}"


def _want(path: Path, variable: str) -> None:
    if not path.is_file():
        raise Missing(f"{variable} is set, but {path} is not there")
