"""The release site: one runnable stand-in for the agent per version and machine, and what GitHub says about it.

A stand-in binary is a shell script of more than 1 MiB that answers `--version` like the real one; the bytes of one
version are the same on every run, so that digests can be compared and pinned.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import json
import re
from dataclasses import dataclass

VERSIONS = ("1.18.4", "1.19.4", "1.19.5", "2.0.0", "2.3.1", "2.3.2", "2.3.3")
MARKER = b"# komodo-sandbox-agent "
SIZE = 1_200_000

_SCRIPT = """#!/bin/sh
# komodo-sandbox-agent {version} {arch}
case ${{1-}} in
  --version|-V)
    if [ -n "${{KU_SANDBOX_ROOT-}}" ] && [ -e "$KU_SANDBOX_ROOT/.old-libc" ] && [ "{major}" != 1 ]; then
      echo "$0: /lib/x86_64-linux-gnu/libc.so.6: version \\`GLIBC_2.34' not found (required by $0)" >&2
      exit 1
    fi
    echo "periphery {version}"; exit 0 ;;
esac
echo "this is a stand-in for Komodo Periphery {version}: only the sandbox's systemd runs it" >&2
exit 1
"""


SETUP_SCRIPT = """# a stand-in for Komodo's setup-periphery.py: stops the agent, deletes the binary, downloads, starts
import os, platform, subprocess, sys
root = os.environ["KU_SANDBOX_ROOT"]
words = sys.argv[1:]
version = next((w.partition("=")[2] for w in words if w.startswith("--version=")), "")
if not version and "--version" in words:
    version = words[words.index("--version") + 1]
target = os.path.join(root, "usr/local/bin/periphery")
subprocess.run(["systemctl", "stop", "periphery"])
if os.path.exists(target):
    os.unlink(target)
asset = "periphery-" + platform.machine()
url = "https://github.com/moghtech/komodo/releases/download/" + version + "/" + asset
subprocess.run(["curl", "-f", "-sSL", "-o", target, url], check=True)
subprocess.run(["chmod", "+x", target])
if not os.path.exists(os.path.join(root, "etc/komodo/periphery.config.toml")):
    print("no config: the real script downloads a template here")
subprocess.run(["systemctl", "start", "periphery"])
print("Finished periphery setup.")
"""
"""In the order of v2.3.2:scripts/setup-periphery.py; it never edits a config that exists."""


@functools.cache
def binary(version: str, arch: str) -> bytes:
    """The agent of one release."""
    text = _SCRIPT.format(version=version, arch=arch, major=version.split(".")[0]).encode()
    block = hashlib.shake_256(f"{version}/{arch}".encode()).digest(60_000)
    filler = base64.b64encode(block)
    lines = b"".join(b"# " + filler[i : i + 110] + b"\n" for i in range(0, len(filler), 110))
    return text + lines * (SIZE // len(lines) + 1)


def marker_version(head: bytes) -> str:
    """The version of a stand-in from its first bytes; empty for anything else."""
    found = re.search(re.escape(MARKER) + rb"(\S+) ", head)
    return found.group(1).decode() if found else ""


@dataclass(slots=True)
class Answer:
    """What the site says."""

    status: int
    body: bytes
    kind: str = "application/octet-stream"


_ASSET = re.compile(r"/(?:moghtech/komodo/)?releases/download/v?([\d.]+)/periphery-(x86_64|aarch64)$")
_SETUP = re.compile(r"/moghtech/komodo/(?:v[\d.]+|main)/scripts/setup-periphery\.py$")
_TAG = re.compile(r"/repos/moghtech/komodo/releases/(?:tags/v?([\d.]+)|latest)$")


class Releases:
    """Answers for github.com and api.github.com."""

    def __init__(self) -> None:
        self.base = "http://releases.invalid"
        """Address of the same site for a worker's own HTTP client, once it listens."""

    def get(self, path: str) -> Answer:
        """By the path of the URL."""
        asset = _ASSET.search(path)
        if asset and asset.group(1) in VERSIONS:
            return Answer(200, binary(asset.group(1), asset.group(2)))
        if _SETUP.search(path):
            return Answer(200, SETUP_SCRIPT.encode(), "text/plain; charset=utf-8")
        tag = _TAG.search(path)
        if tag and (tag.group(1) or VERSIONS[-1]) in VERSIONS:
            return Answer(200, json.dumps(self._release(tag.group(1) or VERSIONS[-1])).encode(), "application/json")
        return Answer(404, b"Not Found", "text/plain; charset=utf-8")

    def _release(self, version: str) -> dict[str, object]:
        assets = []
        for arch in ("x86_64", "aarch64"):
            data = binary(version, arch)
            name = f"periphery-{arch}"
            assets.append(
                {
                    "name": name,
                    "size": len(data),
                    "digest": f"sha256:{hashlib.sha256(data).hexdigest()}",
                    "browser_download_url": f"https://github.com/moghtech/komodo/releases/download/v{version}/{name}",
                }
            )
        return {"tag_name": f"v{version}", "name": f"v{version}", "draft": False, "prerelease": False, "assets": assets}
