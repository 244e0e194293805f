"""The policy of this worker: asked before a fleet's command runs, its file is read, or its host is reached."""

from __future__ import annotations

from pathlib import Path

from hosts.private_file import PrivateFile, Stamp
from model.errors import PolicyRefused
from model.fleet.spec import HostSpec
from model.worker_policy import ANY, WorkerPolicy, absolute, hops, parse

ENV = "KOMODO_UPGRADE_WORKER_POLICY"


class Policy:
    """A fixed policy, or one in a file that is read again when it was replaced."""

    def __init__(self, fixed: WorkerPolicy = ANY, file: Path | None = None) -> None:
        self._now = fixed
        self._file = file
        self._stamp: Stamp | None = None

    def command(self, command: str, what: str) -> None:
        """Raises PolicyRefused unless this command may run."""
        self._require(self._read().allows_command(command), f"{what}, {command!r}", "commands")

    def variable(self, name: str) -> None:
        """Raises PolicyRefused unless this variable may be read."""
        self._require(self._read().allows_variable(name), f"the environment variable {name}", "variables")

    def path(self, name: str) -> Path:
        """The path that was checked, to be opened as it is. Raises PolicyRefused unless this file may be read."""
        self._require(self._read().allows_file(name), f"the file {name}", "files")
        return Path(absolute(name))

    def host(self, address: str) -> None:
        """Raises PolicyRefused unless this host may be reached."""
        self._require(self._read().allows_host(address), f"the host {address}", "hosts")

    def _require(self, allowed: bool, what: str, key: str) -> None:
        if allowed:
            return
        where = f"add it to `{key}` in {self._file}" if self._file else f"name a policy in {ENV} that allows it"
        raise PolicyRefused(f"the worker's policy does not allow {what}", hint=where)

    def _read(self) -> WorkerPolicy:
        if self._file is None:
            return self._now
        file = policy_file(self._file)
        if file.stamp() != self._stamp:
            text, stamp = file.read()
            self._now, self._stamp = parse(text, str(self._file)), stamp
        return self._now


def policy_file(path: Path) -> PrivateFile:
    """Raises PolicyRefused where it cannot be used."""
    return PrivateFile(path, PolicyRefused)


_installed = Policy()


def install(policy: Policy) -> None:
    """Of this process from here on."""
    global _installed
    _installed = policy


def policy() -> Policy:
    """Of this process; without a worker everything is allowed."""
    return _installed


def check_host(spec: HostSpec) -> None:
    """Raises PolicyRefused unless the host, its jump hosts and the files that lead there are allowed."""
    for address in (spec.address, *hops(spec.jump)):
        policy().host(address)
    for name in (spec.known_hosts, "" if spec.ssh_config == "none" else spec.ssh_config):
        if name:
            policy().path(name)
