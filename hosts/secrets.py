"""Secrets are references; they are resolved here, on the worker, at the moment of use."""

from __future__ import annotations

import asyncio
import logging
import os
import stat
from pathlib import Path

from hosts.known_secrets import learn_reference
from hosts.policy import policy
from model.errors import SecretMissing
from model.fleet.spec import SecretRef

_log = logging.getLogger(__name__)
_COMMAND_SECONDS = 30.0


async def resolve(ref: SecretRef) -> str:
    """`_resolve`; the value is masked in texts from then on."""
    value = await _resolve(ref)
    learn_reference(str(ref), value)
    return value


async def _resolve(ref: SecretRef) -> str:
    """The secret's value: of an environment variable, a file (one line break at its end is dropped), or a command.

    Raises SecretMissing, which names the reference and never a value.
    """
    if ref.env:
        policy().variable(ref.env)
        value = os.environ.get(ref.env, "")
        if not value:
            raise SecretMissing(
                f"{ref} is not set where the worker runs",
                hint=f"set {ref.env} in the worker's environment, then try again",
            )
        return value
    if ref.file:
        return await asyncio.to_thread(_from_file, ref, policy().path(ref.file))
    policy().command(ref.command, "the command of a secret")
    return await _from_command(ref)


def _from_file(ref: SecretRef, path: Path) -> str:
    try:
        mode = path.stat().st_mode
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise SecretMissing(
            f"{ref} cannot be read by the worker: {reason}", hint=f"ls -l {path}, as the worker's user"
        ) from None
    if mode & (stat.S_IRGRP | stat.S_IROTH):
        _log.warning("%s can be read by others than its owner; next: chmod 600 %s", ref, path)
    value = text.removesuffix("\n").removesuffix("\r")
    if not value:
        raise SecretMissing(f"{ref} is empty", hint=f"write the secret into {path}")
    return value


async def _from_command(ref: SecretRef) -> str:
    process = await asyncio.create_subprocess_exec(
        "/bin/sh",
        "-c",
        ref.command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        async with asyncio.timeout(_COMMAND_SECONDS):
            out, _ = await process.communicate()
    except TimeoutError:
        raise SecretMissing(
            f"{ref} did not end within {_COMMAND_SECONDS:.0f} s", hint="run it by hand as the worker's user"
        ) from None
    finally:
        if process.returncode is None:
            # The command and its child processes.
            os.killpg(process.pid, 9)
            await process.wait()
    if process.returncode:
        raise SecretMissing(
            f"{ref} ended with exit code {process.returncode}", hint="run it by hand as the worker's user"
        )
    try:
        value = out.decode().removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError:
        raise SecretMissing(f"{ref} printed something that is not UTF-8 text") from None
    if not value:
        raise SecretMissing(f"{ref} printed nothing", hint="run it by hand as the worker's user")
    return value
