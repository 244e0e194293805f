"""Every error of the project, in one tree.

    UpgradeError
    ├── FleetFileError            the fleet file cannot be used
    ├── PlanFileError             the plan file cannot be used
    ├── SecretMissing             a reference (env, file, command) does not resolve
    ├── EditRefused               a file cannot be edited safely; carries the snippet to paste
    ├── KeyRejected               text that is no X25519 public key
    ├── PlanChanged               a host is no longer what the plan was made for
    ├── HostError
    │   ├── Unreachable *         no connection: refused, timed out, name unknown, link lost
    │   ├── HostKeyUnknown        the host's key is in no known_hosts file
    │   ├── HostKeyChanged        the host shows another key than the recorded one
    │   ├── AuthenticationFailed  no key or password was accepted
    │   ├── SudoFailed            sudo refused, wants a password, or the password is wrong
    │   ├── PermissionRefused     the remote user may not do this
    │   ├── DiskFull              no space left
    │   ├── HostLocked            another change holds the host
    │   ├── CommandFailed         exit code and the last lines
    │   ├── CommandTimedOut *     no end within its time
    │   └── JobLost *             a detached job ended without an exit code
    ├── CoreApiError
    │   ├── CoreUnreachable *     no HTTP answer
    │   ├── CoreRefused           401 or 403: never retried (Core counts attempts)
    │   ├── CoreBusy *            429: retried after its own delay
    │   └── CoreAnswered          any other status, with Core's own words
    ├── ArtifactError             a binary or image that is not what it should be
    │   └── DownloadFailed *      it could not be had
    ├── DatabaseError             the database cannot be read, or a restore failed
    │   ├── DatabaseUnreachable * no answer from it, or the way to it broke
    │   ├── DatabaseDenied        the login may not do this
    │   └── DumpRejected          a dump that proves nothing: empty, truncated, wrong database
    ├── AgentFailed               an agent's v2 does not run as it must
    │   ├── AgentNotStarted       it exits, loops or never reports its version
    │   ├── ConfigNotLoaded       it runs without the config: it is open to anyone
    │   └── AutoRolledBack        the host's automatic rollback timer ended: the old version runs again
    ├── NotProven *               v2 runs, Core has not confirmed it yet
    ├── TemporalUnavailable       no Temporal server answers
    ├── NoWorker                  Temporal answers, but no worker does
    │   └── TimeIsOver            no result within --timeout
    ├── KeyRingError              the keys of the payload codec cannot be used
    ├── NotAuthenticated          a payload that was not encrypted with this key ring for this workflow
    ├── PolicyRefused             the worker's own policy does not allow it
    ├── UpgradeAlreadyRunning     the fleet is being upgraded or rolled back right now
    ├── NoSuchUpgrade             nothing runs (or ever ran) for this fleet
    ├── NotAccepted               a decision or control that the upgrade did not take
    ├── ServiceRefused            the embedded service cannot be started, replaced or stopped now
    └── InternalError             a bug of this project; carries the place to report it

Those marked * are transient: the same step may succeed when it is tried again. Everything else needs a person.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import ClassVar


class UpgradeError(Exception):
    """What happened, on which host, what was left behind, and what to type next.

    `transient` says whether trying the same step again can help; Temporal's retries follow it.
    """

    transient: ClassVar[bool] = False
    exit_code: ClassVar[int] = 1

    def __init__(self, what: str, *, host: str = "", residue: str = "", hint: str = "") -> None:
        self.what = what
        self.host = host
        self.residue = residue
        self.hint = hint
        super().__init__(what)

    def __str__(self) -> str:
        where = f"{self.host}: " if self.host else ""
        residue = f"\n  left behind: {self.residue}" if self.residue else ""
        hint = f"\n  next: {self.hint}" if self.hint else ""
        return f"{where}{self.what}{residue}{hint}"


@dataclass(frozen=True, slots=True, kw_only=True)
class FileProblem:
    """One thing that is wrong in a file a person wrote."""

    line: int
    """From 1; 0: not tied to a line."""
    key: str
    """Dotted, with the server's name where one is meant: "server[web-1].host"."""
    what: str
    hint: str


class FleetFileError(UpgradeError):
    """The fleet file cannot be read or is not valid; names file, key or line, and has a hint.

    `problems` holds all of them, each with its own line and hint.
    """

    exit_code = 2

    def __init__(
        self, what: str, *, problems: tuple[FileProblem, ...] = (), host: str = "", residue: str = "", hint: str = ""
    ) -> None:
        super().__init__(what, host=host, residue=residue, hint=hint)
        self.problems = problems


class SecretMissing(UpgradeError):
    """A secret's reference does not resolve on this worker. Names the reference, never a value."""


class EditRefused(UpgradeError):
    """A file that cannot be edited safely. `snippet` is what a person pastes instead."""

    exit_code = 4

    def __init__(self, what: str, *, snippet: str = "", host: str = "", residue: str = "", hint: str = "") -> None:
        super().__init__(what, host=host, residue=residue, hint=hint)
        self.snippet = snippet


class KeyRejected(UpgradeError):
    """Text that is not one X25519 public key in the form Komodo takes."""


class PlanFileError(UpgradeError):
    """A file of `plan -o` cannot be written, read or used: it was changed, or is one of another fleet or release."""

    exit_code = 2


class PlanChanged(UpgradeError):
    """A host differs from what was planned and approved: plan and approve again."""


class HostError(UpgradeError):
    """Something about one remote machine."""


class Unreachable(HostError):
    """No SSH connection: refused, timed out, unknown name, or lost on the way."""

    transient = True


class HostKeyUnknown(HostError):
    """The host's key is in no known_hosts file. `fingerprint` is what the host showed."""

    def __init__(self, what: str, *, fingerprint: str = "", host: str = "", residue: str = "", hint: str = "") -> None:
        super().__init__(what, host=host, residue=residue, hint=hint)
        self.fingerprint = fingerprint


class HostKeyChanged(HostKeyUnknown):
    """The host shows another key than the one on record: it was reinstalled, or someone intercepts the connection."""


class AuthenticationFailed(HostError):
    """The SSH server accepted none of our keys."""


class SudoFailed(HostError):
    """sudo refused: no rights, a password is needed, or the password is wrong."""


class PermissionRefused(HostError):
    """The remote user may not read or write this."""


class DiskFull(HostError):
    """No space (or no inodes, or quota) left on a file system of the host."""


class HostLocked(HostError):
    """Another change holds the host's lock."""


class CommandFailed(HostError):
    """A remote command ended with an exit code other than 0. `tail` holds its last lines, cleaned of secrets."""

    def __init__(
        self, what: str, *, code: int = 1, tail: str = "", host: str = "", residue: str = "", hint: str = ""
    ) -> None:
        super().__init__(what, host=host, residue=residue, hint=hint)
        self.code = code
        self.tail = tail


class CommandTimedOut(HostError):
    """A remote command did not end within its time."""

    transient = True


class JobLost(HostError):
    """A detached job is gone without an exit code (the host rebooted, or someone killed it)."""

    transient = True


class CoreApiError(UpgradeError):
    """Something about Komodo Core's HTTP API."""


class CoreUnreachable(CoreApiError):
    """No HTTP answer from Core."""

    transient = True


class CoreRefused(CoreApiError):
    """401 or 403. Never retried: v2 locks out after five failures in 15 s (v2.3.2 auth_rate_limit_*)."""


class CoreBusy(CoreApiError):
    """429. `retry_after` is Core's own delay."""

    transient = True

    def __init__(self, what: str, *, retry_after: timedelta, host: str = "", hint: str = "") -> None:
        super().__init__(what, host=host, hint=hint)
        self.retry_after = retry_after


class CoreAnswered(CoreApiError):
    """Any other status than 200, with Core's `error` and `trace` joined into one line."""

    def __init__(self, what: str, *, status: int, host: str = "", hint: str = "") -> None:
        super().__init__(what, host=host, hint=hint)
        self.status = status


class ArtifactError(UpgradeError):
    """A binary or an image that is not what it should be."""


class DownloadFailed(ArtifactError):
    """An artifact could not be had from where it lies."""

    transient = True


class DatabaseError(UpgradeError):
    """The database cannot be read, dumped or restored."""


class DatabaseUnreachable(DatabaseError):
    """No answer from the database: it is not up (yet), or the connection broke during a read."""

    transient = True


class DatabaseDenied(DatabaseError):
    """The database does not let the login in, or not do this."""


class DumpRejected(DatabaseError):
    """A dump that proves nothing: empty, truncated, of the wrong database, or changed meanwhile."""


class AgentFailed(UpgradeError):
    """An agent's new version does not run as it must. It is restored at once."""


class AgentNotStarted(AgentFailed):
    """The agent exits, loops, or never reported its version after the restart."""


class ConfigNotLoaded(AgentFailed):
    """The agent runs without its config file or without the key: it accepts any Core."""


class AutoRolledBack(AgentFailed):
    """The host's automatic rollback timer ended before Core confirmed the server: its old version runs again."""


class NotProven(UpgradeError):
    """v2 runs with its config, but Core has not confirmed it yet.

    `waited`: the step has already waited as long as the fleet file allows, so trying it again would only add to that.
    """

    transient = True

    def __init__(self, what: str, *, waited: bool = False, host: str = "", residue: str = "", hint: str = "") -> None:
        super().__init__(what, host=host, residue=residue, hint=hint)
        if waited:
            self.__dict__["transient"] = False


class TemporalUnavailable(UpgradeError):
    """No Temporal server answers."""

    exit_code = 10


class NoWorker(UpgradeError):
    """Temporal answers, but no worker polls the task queue (or none answered in time)."""

    exit_code = 10


class TimeIsOver(NoWorker):
    """No result within the time that the command waits."""

    exit_code = 124


class KeyRingError(UpgradeError):
    """The key ring of the payload codec cannot be read, or others may read it."""

    exit_code = 10


class NotAuthenticated(UpgradeError):
    """What Temporal holds was not encrypted with this key ring, or for another workflow."""

    exit_code = 10


class PolicyRefused(UpgradeError):
    """The fleet wants a command, a file or a host that the worker's own policy does not allow."""


class UpgradeAlreadyRunning(UpgradeError):
    """One upgrade per fleet: who started the running one, when, and how to see its state."""

    exit_code = 11


class NoSuchUpgrade(UpgradeError):
    """There is no upgrade of this fleet to show, to answer or to roll back."""

    exit_code = 2


class EndedByTemporal(UpgradeError):
    """An upgrade was cancelled, terminated or broken off from Temporal's side: it has no result of its own."""


class NotAccepted(UpgradeError):
    """The upgrade did not take a decision: no such gate, a stale plan, another answer came first."""


class ServiceRefused(UpgradeError):
    """The embedded service (Temporal and worker on this machine) cannot do what was asked right now."""


class InternalError(UpgradeError):
    """A bug of this project, met by an activity."""
