"""Komodo's releases: version numbers, addresses of agent binaries, what an artifact must look like.

Assets are `periphery-x86_64` and `periphery-aarch64` (v2.3.2:scripts/setup-periphery.py); releases carry no checksum
file, but GitHub's API gives newer assets a digest. v2 binaries need glibc 2.34 or newer and OpenSSL 3
(upgrade guide, "Breaking").
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from urllib.parse import urlsplit

from model.errors import ArtifactError, UpgradeError

FIRST_V2 = (2, 0, 0)
NEWEST_KNOWN = (2, 3, 3)
"""The newest release whose changes are known here (2026-09-02); the last of `model.fleet.values.RELEASES`."""
OLDEST_AGENT = (1, 15, 0)
"""The oldest v1 release whose files and logs are known."""
MIN_GLIBC = (2, 34)
"""v2's binaries are built on Debian 12 and ask for symbols of GLIBC_2.34 (upgrade guide, "Breaking")."""
FIRST_KM = (1, 19, 0)
"""From here on Core's image has `km` with `database backup` and `restore` (v1.19.0:bin/cli)."""
ARCHES = ("x86_64", "aarch64")
LARGEST_AGENT = 512 * 1024 * 1024
"""Bytes. v2.3.2's binary has 40 MiB."""
_ARCH_NAMES = {"x86_64": "x86_64", "amd64": "x86_64", "aarch64": "aarch64", "arm64": "aarch64"}
_ELF_MACHINES = {62: "x86_64", 183: "aarch64"}
_EXACT = re.compile(r"v?(\d+)\.(\d+)\.(\d+)")

TOO_OLD = (
    "upgrade this system (Debian 12, Ubuntu 22.04, RHEL 9 or newer), run the agent as a container, "
    "or name the server in leave_behind"
)
"""What can be done about a host on which v2's binary cannot run."""


def version_of(text: str) -> tuple[int, int, int] | None:
    """ "2.3.2" or "v2.3.2" as numbers; None for anything else ("latest", "2", a pre-release)."""
    match = _EXACT.fullmatch(text.strip())
    return (int(match.group(1)), int(match.group(2)), int(match.group(3))) if match else None


def check_target(target: str) -> tuple[int, int, int]:
    """The target as numbers. Raises UpgradeError where it is no exact v2 version."""
    numbers = version_of(target)
    if numbers is None:
        raise UpgradeError(f"{target!r} is no exact version", hint='write target = "2.3.2" (three numbers, without v)')
    if numbers < FIRST_V2:
        raise UpgradeError(f"{target} is no v2 version", hint="this tool upgrades to 2.0.0 or newer")
    return numbers


def arch_of(machine: str) -> str:
    """x86_64 or aarch64 from `uname -m`; empty where Komodo offers no binary (32-bit ARM and others)."""
    return _ARCH_NAMES.get(machine.strip().lower(), "")


def printed_version(text: str) -> str:
    """The version in the output of `periphery --version`: "periphery 2.3.2" → "2.3.2"; empty for other output."""
    match = re.search(r"^periphery v?(\d+\.\d+\.\d+\S*)\s*$", text.strip(), re.MULTILINE)
    return match.group(1) if match else ""


def asset_url(template: str, version: str, arch: str) -> str:
    """The address of an agent's binary, from a template with {version} (without v) and {arch}."""
    return template.replace("{version}", version).replace("{arch}", arch)


def release_api(url: str) -> str:
    """GitHub's API address of the release that an asset's address belongs to; empty for any other site."""
    parts = urlsplit(url)
    match = re.fullmatch(r"/([^/]+)/([^/]+)/releases/download/([^/]+)/[^/]+", parts.path)
    if parts.hostname != "github.com" or not match:
        return ""
    return f"https://api.github.com/repos/{match.group(1)}/{match.group(2)}/releases/tags/{match.group(3)}"


def published_digest(answer: bytes, url: str) -> str:
    """The sha256 that an answer of GitHub's release API gives for the asset at this address; empty: none."""
    try:
        release = json.loads(answer)
    except (ValueError, RecursionError):
        return ""
    assets = release.get("assets") if isinstance(release, Mapping) else None
    name = urlsplit(url).path.rsplit("/", 1)[-1]
    for asset in assets if isinstance(assets, list) else ():
        if isinstance(asset, Mapping) and asset.get("name") == name:
            kind, _, digest = str(asset.get("digest") or "").partition(":")
            if kind == "sha256" and re.fullmatch(r"[0-9a-f]{64}", digest):
                return digest
    return ""


def check_artifact(head: bytes, size: int, *, arch: str, source: str) -> None:
    """Refuse what is no program, before it is run: a shell would execute an HTML page line by line.

    `head` is the file's first bytes (20 are enough). Raises ArtifactError.
    """
    if size < 64:
        beginning = head[:40].decode("ascii", "replace").strip()
        raise ArtifactError(
            f"{source} is {size} bytes ({beginning!r}), no program",
            hint="check that this version exists, or set url or sha256 in [agent] of the fleet file",
        )
    if head[:4] == b"\x7fELF":
        machine = _ELF_MACHINES.get(int.from_bytes(head[18:20], "little"), "another machine")
        if machine != arch:
            raise ArtifactError(
                f"{source} is a program for {machine}, the host is {arch}", hint="correct url in [agent]"
            )
        return
    if head[:2] != b"#!":
        raise ArtifactError(
            f"{source} is no program (it begins with {head[:16]!r})",
            hint='a proxy or a login page may have answered: download it by hand, or set download = "worker"',
        )


def runs_here(glibc: str, openssl3: bool | None) -> str:
    """Why v2's binary is expected not to run on such a system; empty if it is expected to run."""
    numbers = tuple(int(n) for n in re.findall(r"\d+", glibc)[:2])
    if len(numbers) == 2 and numbers < MIN_GLIBC:
        return f"its glibc is {glibc}, v2's binary needs 2.34 or newer"
    if openssl3 is False:
        return "it has no OpenSSL 3 (libssl.so.3), which v2's binary needs"
    return ""


def guide_suffix(version: str) -> str:
    """`bak_v1` for a v1 version (and an unknown one), `bak_v2.0.0` for 2.0.0 and so on (upgrade guide, "Backup")."""
    numbers = version_of(version)
    if numbers is None or numbers < FIRST_V2:
        return "bak_v1"
    return f"bak_v{'.'.join(map(str, numbers))}"
