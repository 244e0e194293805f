"""The release, and a fingerprint of the installed files."""

from __future__ import annotations

import hashlib
import platform
from functools import cache
from importlib import metadata
from pathlib import Path

_ROOT = Path(__file__).resolve().parent.parent
_PACKAGES = ("activities", "hosts", "komodo", "model", "workflows")
"""The packages of a worker. A change of only the command line needs no new worker."""


@cache
def release() -> str:
    """The version, such as 0.1.0; 0 when run without an installation."""
    try:
        return metadata.version("komodo-upgrade")
    except metadata.PackageNotFoundError:
        return "0"


@cache
def code() -> str:
    """12 hexadecimal digits over release and files."""
    digest = hashlib.sha256(release().encode())
    files = [_ROOT / "worker.py"]
    for package in _PACKAGES:
        files += sorted(p for p in (_ROOT / package).rglob("*") if p.suffix in {".py", ".sh"})
    for file in files:
        digest.update(file.relative_to(_ROOT).as_posix().encode())
        digest.update(file.read_bytes() if file.exists() else b"")
    return digest.hexdigest()[:12]


def describe(program: str) -> str:
    """What `--version` prints."""
    return f"{program} {release()} (code {code()}, Python {platform.python_version()})"
