"""A Core that does not run as root has to write its key pair: into a folder that is made for root it cannot.

v2 ends then ("Failed to write private key pem to …", v2.3.2:bin/core/src/config.rs), and v1 had nothing to write there.
"""

from __future__ import annotations

from komodo.core.containers import Container, refuse
from model.facts import Finding

_ROOT = ("", "0", "root")


def is_root(core: Container) -> bool:
    """By `user:`, which no image of Komodo sets."""
    return core.user.partition(":")[0] in _ROOT


def findings(core: Container, folder: str, owner: str, mode: str) -> list[Finding]:
    """`folder`: where the keys will lie, empty for a volume; its `owner` ("1000:1000") and `mode`, "-" for none."""
    if is_root(core):
        return []
    if not folder:
        text = f"{core.name} runs as user {core.user}, who cannot write to a new volume: v2 keeps its keys there"
        return [refuse("keys-not-writable", text, "mount a folder of this user at /config/keys instead")]
    user, _, group = core.user.partition(":")
    if _may_write(user, group, owner, mode):
        return []
    return [
        refuse(
            "keys-not-writable",
            f"{core.name} runs as user {core.user}, who cannot write to {folder}: v2 keeps its keys there and does not "
            "start without",
            f"sudo install -d -m 700 -o {user}{f' -g {group}' if group else ''} {folder}",
        )
    ]


def _may_write(user: str, group: str, owner: str, mode: str) -> bool:
    """The name of a user is the image's own affair: for it only the rights of all others count."""
    if not mode.isdigit():
        return False
    rights, (uid, _, gid) = int(mode, 8), owner.partition(":")
    return bool(rights & 0o002 or (user == uid and rights & 0o200) or (group and group == gid and rights & 0o020))
