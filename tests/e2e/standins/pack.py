"""Builds the stand-ins in the folder layout of the real programs: one file each, which runs with Python 3.11."""

from __future__ import annotations

import importlib.util
import marshal
import zipfile
from pathlib import Path

import bson
import pymongo

from tests.e2e.bed.settings import ROOT, VERSIONS, Switch

_SAYS = {"core": "komodo_core {version}", "periphery": "periphery {version}", "km": "km {version}"}
_TOOLS = "100.12.0"
_MAIN = """import sys
if sys.argv[1:2] in (["--version"], ["-V"]):
    print({says!r})
    sys.exit(0)
from tests.e2e.standins.{module} import main
sys.exit(main({argument!r}))
"""
"""The version is printed before anything is imported, because it is queried often."""
_EPOCH = (2026, 1, 1, 0, 0, 0)
"""The time of every file inside: the same sources give the same bytes, so that digests can be compared."""


def build(switch: Switch) -> None:
    """Build every program that is not real. Unchanged files are not written."""
    if switch.real_komodo and switch.real_tools:
        return
    ours, database = _compiled(_ours()), _compiled(_database())
    only_bson = {name: data for name, data in database.items() if name.startswith("bson/")}
    if not switch.real_komodo:
        for version in VERSIONS:
            for program, says in _SAYS.items():
                files = {**ours, **(only_bson if program == "periphery" else database)}
                text = _MAIN.format(says=says.format(version=version), module=program, argument=version)
                _write(switch.komodo / f"v{version}" / program, files, text)
    if not switch.real_tools:
        for program in ("mongodump", "mongorestore"):
            says = f"{program} version: {_TOOLS}"
            text = _MAIN.format(says=says, module="tools", argument=program)
            _write(switch.tools / program, {**ours, **database}, text)


def _compiled(files: dict[str, bytes]) -> dict[str, bytes]:
    """Pack sources with bytecode: Debian 12's Python uses it, another one falls back to the sources."""
    found = dict(files)
    for name, source in files.items():
        code = compile(source, name, "exec", dont_inherit=True)
        head = importlib.util.MAGIC_NUMBER + (1).to_bytes(4, "little") + b"\0" * 8  # hash-based, unchecked
        # Version 2: later ones mark shared objects, so the same sources would give other bytes.
        found[f"{name}c"] = head + marshal.dumps(code, 2)
    return found


def _ours() -> dict[str, bytes]:
    here = ROOT / "tests/e2e/standins"
    files = {str(p.relative_to(ROOT)): p.read_bytes() for p in (ROOT / "sandbox").rglob("*.py")}
    files |= {f"tests/e2e/standins/{p.name}": p.read_bytes() for p in here.glob("*.py") if p.name != "pack.py"}
    files |= {"tests/__init__.py": b"", "tests/e2e/__init__.py": b""}
    base = "cryptography/hazmat/primitives"
    for folder in ("cryptography", "cryptography/hazmat", base, f"{base}/asymmetric"):
        files[f"{folder}/__init__.py"] = b""
    files[f"{base}/serialization.py"] = (here / "shim/serialization.py").read_bytes()
    files[f"{base}/asymmetric/x25519.py"] = (here / "shim/x25519.py").read_bytes()
    return files


def _database() -> dict[str, bytes]:
    """pymongo without its C extensions, which a zip file cannot contain."""
    found: dict[str, bytes] = {}
    for package in (bson, pymongo):
        folder = Path(str(package.__file__)).parent
        found |= {f"{folder.name}/{p.relative_to(folder)}": p.read_bytes() for p in folder.rglob("*.py")}
    import dns

    folder = Path(str(dns.__file__)).parent
    return found | {f"dns/{p.relative_to(folder)}": p.read_bytes() for p in folder.rglob("*.py")}


def _write(path: Path, files: dict[str, bytes], main: str) -> None:
    files = {**files, "__main__.py": main.encode()}
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f"{path.name}.new")
    with new.open("wb") as raw:
        raw.write(b"#!/usr/bin/env python3\n")
        with zipfile.ZipFile(raw, "w", zipfile.ZIP_DEFLATED) as packed:
            for name in sorted(files):
                packed.writestr(zipfile.ZipInfo(name, _EPOCH), files[name], zipfile.ZIP_DEFLATED)
    new.chmod(0o755)
    if path.exists() and path.read_bytes() == new.read_bytes():
        new.unlink()
    else:
        new.replace(path)
