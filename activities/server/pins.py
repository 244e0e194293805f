"""Core's key in the files that an agent pins (`file:…` entries of core_public_keys). Reads only."""

from __future__ import annotations

import base64
from collections.abc import Iterable

from hosts.exec.script import Script, parse
from hosts.host import Host
from komodo.public_key import key_in_file

LIMIT = 4096
"""Bytes of a file with one public key; a real one has 113."""
MOST = 8
"""Files that are read: a config names one."""


async def keys_in_files(host: Host, pins: Iterable[str]) -> dict[str, str]:
    """Entry → the key in its file; empty where the file is gone, or holds no key. Raises HostError."""
    found = {}
    for entry in [pin for pin in pins if pin.startswith("file:")][:MOST]:
        file = await host.read(entry.removeprefix("file:"), limit=LIMIT)
        found[entry] = key_in_file(file.data) if file else ""
    return found


async def keys_in_container(host: Host, container: str, pins: Iterable[str]) -> dict[str, str]:
    """The same for files inside a container. Raises HostError."""
    entries = [pin for pin in pins if pin.startswith("file:")][:MOST]
    if not entries:
        return {}
    paths = (entry.removeprefix("file:") for entry in entries)
    script = Script.load("komodo.sh", "core/read_container_files.sh", *paths, container=container)
    found = dict.fromkeys(entries, "")
    for line in parse((await host.run(script)).text).get("file", []):
        path, _, text = line.rpartition("\t")
        found[f"file:{path}"] = key_in_file(base64.b64decode(text.replace(" ", "")))
    return found
