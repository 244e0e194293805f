"""The state folder of the embedded service: one folder, one supervisor."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import IO, Any

from model.errors import ServiceRefused

ENV = "KOMODO_UPGRADE_STATE"


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """The supervisor's record of itself and its two children. Holds no secret."""

    phase: str = ""
    """starting | ready | refusing | stopping | stopped | failed"""
    detail: str = ""
    pid: int = 0
    identity: str = ""
    """When the process started, so that a pid used again is not taken for it."""
    release: str = ""
    code: str = ""
    """Fingerprint of the installed code: an editable installation changes without a new release."""
    address: str = ""
    port: int = 0
    control: str = ""
    """Path of the unix socket."""
    server_pid: int = 0
    server_identity: str = ""
    worker_pid: int = 0
    worker_identity: str = ""
    worker_ready: bool = False
    restarts: dict[str, int] = field(default_factory=dict)
    failures: dict[str, int] = field(default_factory=dict)
    """Per child: lives in a row that ended before it was ready. A killed worker that was ready is no failure."""
    salt: str = ""
    """Of the fingerprints of environment variables."""


class StateDir:
    """`~/.local/state/komodo-upgrade`, or $KOMODO_UPGRADE_STATE; readable by its owner only."""

    def __init__(self, root: Path | None = None) -> None:
        self.root = root or default_root()

    def make(self) -> StateDir:
        """The folder exists afterwards, closed to others. Raises ServiceRefused if another user owns it."""
        self.root.mkdir(parents=True, exist_ok=True, mode=0o700)
        owner = self.root.stat().st_uid
        if owner != os.getuid():
            raise ServiceRefused(
                f"the state folder {self.root} belongs to another user (uid {owner})",
                hint=f"name a folder of your own in {ENV}",
            )
        self.root.chmod(0o700)
        self.empty_config.touch(mode=0o600)
        return self

    @property
    def database(self) -> Path:
        """Temporal's SQLite file."""
        return self.root / "temporal.db"

    @property
    def key_ring(self) -> Path:
        """Keys of the payload codec."""
        return self.root / "key-ring"

    @property
    def policy(self) -> Path:
        """The commands, files and hosts that the embedded worker may use."""
        return self.root / "worker.toml"

    @property
    def empty_config(self) -> Path:
        """Named by TEMPORAL_CONFIG_FILE, so that the embedded worker reads no other settings."""
        return self.root / "no-temporal.toml"

    @property
    def ready_file(self) -> Path:
        """Written by the worker once it polls."""
        return self.root / "worker.ready"

    def log(self, name: str) -> Path:
        """Log of `supervisor`, `temporal` or `worker`."""
        return self.root / f"{name}.log"

    def open_log(self, name: str) -> IO[bytes]:
        """Append; the last one is kept as `.1` when it has grown over 10 MB."""
        path = self.log(name)
        if path.exists() and path.stat().st_size > 10_000_000:
            path.replace(path.with_suffix(".log.1"))
        return path.open("ab")

    def read(self) -> Running:
        """As last written; empty when there is none or it cannot be read."""
        try:
            raw = json.loads((self.root / "supervisor.json").read_text())
        except (OSError, ValueError):
            return Running()
        known = {f.name for f in fields(Running)}
        return Running(**{key: value for key, value in raw.items() if key in known})

    def write(self, running: Running) -> None:
        """Atomically."""
        path = self.root / "supervisor.json"
        temporary = path.with_suffix(f".{os.getpid()}.tmp")
        temporary.write_text(json.dumps(asdict(running), indent=1))
        temporary.chmod(0o600)
        temporary.replace(path)

    def update(self, running: Running, **changes: Any) -> Running:
        """`write` with some fields changed; returns the new record."""
        changed = replace(running, **changes)
        self.write(changed)
        return changed

    def supervised(self) -> bool:
        """A supervisor holds its lock: the only evidence of a running supervisor that cannot be stale."""
        if not self.root.is_dir():
            return False
        with contextlib.suppress(BlockingIOError), self.lock("supervisor"):
            return False
        return True

    @contextlib.contextmanager
    def lock(self, name: str) -> Iterator[IO[str]]:
        """Exclusive, never waiting: raises BlockingIOError. Ends with the last process that holds the descriptor."""
        file = (self.root / f"{name}.lock").open("a")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield file
        finally:
            file.close()


def default_root() -> Path:
    """$KOMODO_UPGRADE_STATE, else under $XDG_STATE_HOME, else ~/.local/state."""
    own = os.environ.get(ENV)
    if own:
        return Path(own).expanduser().absolute()
    base = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    return Path(base).expanduser().absolute() / "komodo-upgrade"
