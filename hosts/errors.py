"""Failures of a connection, of sudo or of a script, as errors of this project."""

from __future__ import annotations

import os
import re
import shlex
import socket
from datetime import timedelta
from pathlib import Path

import asyncssh

from hosts.redact import clean, last_line
from hosts.ssh.known_hosts import KnownHosts, describe, described
from model.errors import (
    AuthenticationFailed,
    CommandFailed,
    DiskFull,
    HostError,
    HostKeyChanged,
    HostKeyUnknown,
    HostLocked,
    JobLost,
    PermissionRefused,
    PlanChanged,
    SudoFailed,
    Unreachable,
    UpgradeError,
)
from model.fleet.spec import HostSpec, Sudo

NO_SPACE, NOT_ALLOWED, CHANGED, LOCKED, INCOMPLETE, LOST = 70, 71, 72, 73, 74, 75
"""Exit codes of our scripts with a meaning of their own (prelude.sh: die)."""

SHOWN_LINES = 6
"""Lines of a failed script's standard error that are part of the message."""

_FULL = re.compile(
    # dash's builtins call every failed write an I/O error.
    r"^.*(?:No space left on device|Disk quota exceeded|(?:echo|printf): (?:write error|I/O error)).*$",
    re.MULTILINE,
)
_UNSAFE = re.compile(r"is not safe to (?:use|run|read) as |cannot be replaced safely")
"""What lib/files.sh and job.sh refuse although they could do it: more rights would not help."""
_READ_ONLY = "Read-only file system"
_DENIED = re.compile(rf"(?:[Pp]ermission denied|Operation not permitted|{_READ_ONLY})$")
_KEY_FILES = {"ssh-ed25519": "ed25519", "ssh-rsa": "rsa", "ecdsa": "ecdsa"}


def ssh_line(spec: HostSpec, address: str, port: int, jump: str = "") -> str:
    """The `ssh` command that a person types to get to the same place."""
    words = ["ssh"]
    if spec.ssh_config and spec.ssh_config != "none":
        words += ["-F", spec.ssh_config]
    if spec.known_hosts:
        words += ["-o", f"UserKnownHostsFile={spec.known_hosts}"]
    for key in spec.key_files:
        words += ["-i", key]
    if jump:
        words += ["-J", jump]
    if port != 22:
        words += ["-p", str(port)]
    return shlex.join([*words, f"{spec.user}@{address}" if spec.user else address])


def host_key_refused(
    spec: HostSpec, known: KnownHosts, alias: str, address: str, port: int, shown: asyncssh.SSHKey | None, jump: str
) -> HostKeyUnknown:
    """The host's key is not the one in known_hosts, or there is none."""
    trusted, _, revoked = known.lookup(alias, port)
    fingerprint = shown.get_fingerprint() if shown else ""
    what_shown = describe(shown) if shown else "a host certificate that no authority on record has signed"
    kind = next((kind for name, kind in _KEY_FILES.items() if shown and shown.get_algorithm().startswith(name)), "*")
    compare = f"`ssh-keygen -lf /etc/ssh/ssh_host_{kind}_key.pub` on the host's own console"
    name = alias if port == 22 else f"[{alias}]:{port}"
    if shown in revoked:
        return HostKeyChanged(
            f"the host showed a key that is marked as revoked in {known.where()}: {what_shown}",
            host=spec.name,
            fingerprint=fingerprint,
            residue="nothing was sent to it",
            hint="do not continue before the owner of the host has explained why",
        )
    if trusted:
        file = known.file_with(alias, port)
        return HostKeyChanged(
            f"the host key of {name} has changed. On record in {file}: {described(trusted)}. Shown now: {what_shown}",
            host=spec.name,
            fingerprint=fingerprint,
            residue="nothing was sent to it",
            hint=(
                f"was the host reinstalled? Compare with {compare}. Equal: "
                f"`{shlex.join(['ssh-keygen', '-R', name, '-f', str(file)])}`, then "
                f"`{ssh_line(spec, address, port, jump)}` and accept {fingerprint or 'the key'}. "
                f"Not equal: the connection may be intercepted"
            ),
        )
    # Through a jump host, and under an alias, ssh-keyscan would ask or write the wrong name.
    line = f"`{ssh_line(spec, address, port, jump)}` and accept only that fingerprint"
    if not jump and alias == address:
        scan = ["ssh-keyscan", *(["-p", str(port)] if port != 22 else []), "-t", kind if kind != "*" else "ed25519"]
        line += f" (or `{shlex.join([*scan, address])} >> {shlex.quote(str(known.files[0]))}`)"
    return HostKeyUnknown(
        f"the host key of {name} is in no known_hosts file ({known.where()}). It showed {what_shown}",
        host=spec.name,
        fingerprint=fingerprint,
        residue="nothing was sent to it",
        hint=f"compare with {compare}; equal: {line}",
    )


def not_connected(spec: HostSpec, where: str, line: str, error: BaseException, patience: timedelta) -> UpgradeError:
    """No connection, with the reason in `error`. `line` is the ssh command that an operator would type."""
    residue = "nothing was sent to it"
    if isinstance(error, UpgradeError):
        return error
    if isinstance(error, TimeoutError):
        return Unreachable(
            f"no SSH connection to {where} within {patience.total_seconds():g} s",
            host=spec.name,
            residue=residue,
            hint=f"is it up, is a firewall in between? `{line}`",
        )
    if isinstance(error, asyncssh.PermissionDenied):
        return AuthenticationFailed(
            f"{where} accepted none of our keys ({clean(error.reason)})",
            host=spec.name,
            residue=residue,
            hint=f"`{line}` as the worker's user must work without a question; "
            "a key in an agent is seen only if SSH_AUTH_SOCK is set where the worker runs",
        )
    if isinstance(error, (asyncssh.KeyImportError, asyncssh.KeyEncryptionError, asyncssh.ConfigParseError)):
        return AuthenticationFailed(
            f"the SSH settings cannot be used: {error}", host=spec.name, residue=residue, hint=line
        )
    if isinstance(error, asyncssh.KeyExchangeFailed):
        return HostError(
            f"{where} and we have no SSH algorithm in common: {error.reason}",
            host=spec.name,
            residue=residue,
            hint=f"`{line} -v` shows what the host offers",
        )
    if isinstance(error, socket.gaierror):
        reason = f"the name does not resolve ({error.strerror})"
    elif isinstance(error, asyncssh.ChannelOpenError):
        reason = f"the jump host could not connect to it ({clean(error.reason)})"
    elif isinstance(error, asyncssh.Error):
        reason = clean(error.reason)
    elif isinstance(error, OSError):
        reason = _os_reason(error)
    else:
        reason = f"{type(error).__name__}: {error}"
    return Unreachable(f"no SSH connection to {where}: {reason}", host=spec.name, residue=residue, hint=f"`{line}`")


def _os_reason(error: OSError) -> str:
    # asyncio's message hides the reason, and joins the messages of several addresses.
    numbers = [error.errno] if error.errno else [int(number) for number in re.findall(r"\[Errno (\d+)\]", str(error))]
    return ", ".join(dict.fromkeys(os.strerror(number).lower() for number in numbers)) or str(error)


def connection_lost(spec: HostSpec, script: str, error: BaseException | None, *, residue: str = "") -> Unreachable:
    """The connection broke while something ran."""
    because = f" ({clean(getattr(error, 'reason', '') or str(error))})" if error and str(error) else ""
    return Unreachable(f"the connection was lost while {script} ran{because}", host=spec.name, residue=residue)


def killed(spec: HostSpec, script: str, signal: str) -> CommandFailed:
    """Our code was killed on the host."""
    how = f" (signal {signal})" if signal else ""
    return CommandFailed(
        f"{script} was killed on the host{how}",
        code=137,
        host=spec.name,
        hint="by an operator, or because memory ran out? `dmesg | tail`; then try again",
    )


def no_session(spec: HostSpec, script: str, error: asyncssh.Error) -> Unreachable:
    """The connection is open, but the server gives no session."""
    return Unreachable(
        f"its SSH server opens no session for {script} ({clean(error.reason)})",
        host=spec.name,
        residue="nothing was started",
        hint="too many sessions there? See MaxSessions in sshd_config",
    )


def sudo_refused(spec: HostSpec, talk: str, *secrets: str) -> HostError:
    """sudo refused; `talk` is its output. Patterns: sudo 1.8 to 1.9 and sudo-rs."""
    output = clean(talk, *secrets)
    reference = spec.sudo_password
    user = spec.user or "the SSH user"
    allow = f"visudo -f /etc/sudoers.d/komodo-upgrade, with the line: {user} ALL=(ALL) NOPASSWD: ALL"
    if re.search(r"incorrect password|try again|incorrect authentication|Authentication failed", output, re.IGNORECASE):
        what, hint = (
            f"sudo did not accept the password of {reference}",
            f"correct {reference}; then try again (nothing was run)",
        )
    elif re.search(r"you must have a tty|requiretty", output):
        what, hint = "sudo wants a terminal here (requiretty)", f"visudo, add: Defaults:{user} !requiretty"
    elif re.search(r"not in the sudoers|may not run|not allowed to (execute|run)|I'm afraid I can't do that", output):
        what, hint = f"{user} has no sudo rights here", allow
    elif re.search(r"password is required|terminal is required|no askpass|interactive authentication", output):
        what = "sudo wants a password"
        if spec.sudo is Sudo.PASSWORD:
            what = "sudo did not take the password without a terminal"
        hint = f'{allow}; or give the password: sudo = {{ password_env = "…" }} in the fleet file'
    elif re.search(r"sudo: (command )?not found|sudo: No such file", output):
        what, hint = "there is no sudo on this host", 'install sudo, or log in as root with sudo = "none"'
    else:
        what, hint = f"sudo refused: {last_line(output) or 'without a message'}", allow
    return SudoFailed(what, host=spec.name, residue="nothing was run", hint=hint)


def script_failed(spec: HostSpec, script: str, code: int, err: str, state_lock: str) -> UpgradeError:
    """A script's exit code and its (cleaned) standard error, as the error that prelude.sh's `die` means."""
    output = last_line(err)
    where = _FULL.search(err)
    if code == NO_SPACE or where:
        return DiskFull(
            f"no space left on a file system of the host: {where.group(0).strip() if where else output}",
            host=spec.name,
            residue="files are replaced whole or not at all",
            hint="df -h; df -i; free space, then try again",
        )
    denied = _denied(err) if code in (1, 2, 126) else ""
    if code == NOT_ALLOWED or denied:
        user = "the SSH user" if spec.sudo is Sudo.NONE else "root"
        hint = f"may {user} do this there? See sudo in the fleet file"
        if denied.endswith(_READ_ONLY):
            hint = "was the file system mounted again because of disk errors? `mount`, `dmesg | tail`; then try again"
        elif _UNSAFE.search(output):
            hint = "change that on the host and try again (the reason: docs/security.md#files-on-hosts)"
        return PermissionRefused(
            (output if output.endswith(denied) else f"{denied}: {output}") or f"{script}: permission denied",
            host=spec.name,
            hint=hint,
        )
    if code == CHANGED:
        return PlanChanged(
            output or f"{script} found something else than was planned", host=spec.name, hint="plan and approve again"
        )
    if code == LOCKED:
        root = "sudo " if spec.sudo is not Sudo.NONE else ""
        return HostLocked(
            output,
            host=spec.name,
            residue="nothing was changed",
            hint=f"if that upgrade is over: {root}rm -r {shlex.quote(state_lock)}",
        )
    if code == INCOMPLETE:
        return HostError(output or "input incomplete", host=spec.name, residue="nothing was started", hint="try again")
    if code == LOST:
        return JobLost(output, host=spec.name, hint="read the log, then try again: the step checks the state first")
    # The output of a tool comes before the script's own message: the last line alone often hides the cause.
    reported = "\n    ".join([line.strip() for line in err.splitlines() if line.strip()][-SHOWN_LINES:])
    return CommandFailed(
        f"{script} ended with exit code {code}" + (f": {reported}" if reported else ""),
        code=code,
        tail=err,
        host=spec.name,
    )


def _denied(err: str) -> str:
    """The line of a tool that was refused. The script's own message follows it."""
    lines = [line.strip() for line in err.splitlines() if line.strip()]
    return next((line for line in reversed(lines[-2:]) if _DENIED.search(line)), "")


def no_shell(spec: HostSpec, script: str, talk: str, status: int | None) -> HostError:
    """The connection works, but our code did not begin to run."""
    output = clean(talk)
    return CommandFailed(
        f"the host's shell did not run {script} (exit code {status if status is not None else 'none'}"
        + (f": {last_line(output)}" if output else "")
        + ")",
        code=status if status is not None else 1,
        tail=output,
        host=spec.name,
        hint="sh and coreutils (dd with iflag=fullblock) must be there, and the login shell must run commands",
    )


def key_unusable(spec: HostSpec, path: Path, reason: str, hint: str) -> AuthenticationFailed:
    """A private key file that cannot be used."""
    return AuthenticationFailed(f"the SSH key {path} cannot be used: {reason}", host=spec.name, hint=hint)
