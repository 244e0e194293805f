"""Output: results on stdout, messages on stderr; colour only on a terminal and without NO_COLOR; files of the user."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Coroutine, Iterator
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

import click

from model.errors import FleetFileError, UpgradeError
from model.serialization import plain, to_json
from model.text.outside import terminal

T = TypeVar("T")
JSON_KEY = "komodo-upgrade.json"


def wants_json() -> bool:
    """`-o json` was given."""
    context = click.get_current_context(silent=True)
    return bool(context and context.meta.get(JSON_KEY))


def say(text: str = "") -> None:
    """Print a message for a person to stderr."""
    click.echo(terminal(text), err=True)


def data(value: Any, text: str) -> None:
    """Print the result: `value` with `-o json`, else `text`."""
    click.echo(to_json(value) if wants_json() else terminal(text))


def on_terminal() -> bool:
    """Whether a person can be asked: standard input and stderr are a terminal."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def is_live() -> bool:
    """Whether a table can be redrawn in place."""
    return sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb" and not wants_json()


def no_colour() -> bool:
    """https://no-color.org, and terminals without colours."""
    return bool(os.environ.get("NO_COLOR")) or os.environ.get("TERM") == "dumb"


def strong(text: str) -> str:
    """A heading or a name."""
    return click.style(text, bold=True)


def good(text: str) -> str:
    """Done."""
    return click.style(text, fg="green")


def careful(text: str) -> str:
    """Needs attention."""
    return click.style(text, fg="yellow")


def bad(text: str) -> str:
    """Failed or refused."""
    return click.style(text, fg="red", bold=True)


def faint(text: str) -> str:
    """Details."""
    return click.style(text, dim=True)


def show_error(error: UpgradeError) -> None:
    """Print the message to stderr; with `-o json` also an object to stdout."""
    say(f"{bad('error:')} {error}")
    if not wants_json():
        return
    facts: dict[str, Any] = {
        "type": type(error).__name__,
        "what": error.what,
        "host": error.host,
        "residue": error.residue,
        "hint": error.hint,
        "exit_code": error.exit_code,
    }
    if isinstance(error, FleetFileError):
        facts["problems"] = plain(error.problems)
    click.echo(to_json({"error": facts}))


@contextlib.contextmanager
def prompting() -> Iterator[None]:
    """Let Ctrl-C end a prompt. Inside `run` it would only cancel a task, which cannot run during the prompt."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def end_on_signals() -> None:
    """Let SIGTERM and SIGHUP (the terminal was closed) end this command as Ctrl-C does, so that it cleans up.

    To be called before `run`, which replaces only Python's own handler of SIGINT.
    """
    # A shell without job control ignores SIGINT in what it starts in the background: nothing would end this command.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _as_interrupt)


def _as_interrupt(number: int, frame: FrameType | None) -> None:
    handler = signal.getsignal(signal.SIGINT)  # in `run` it cancels the task; during a prompt it ends the prompt
    if callable(handler):
        handler(number, frame)


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run the asynchronous part of a command."""
    return asyncio.run(work)


def replace_file(path: Path, content: bytes, *, like: Path | None = None) -> None:
    """Atomic: a temporary file in the same folder with the same owner and mode, on disk before it is renamed.

    A new file is readable by its owner only. Raises UpgradeError.
    """
    model, name = like or path, ""
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            if model.exists():
                shutil.copystat(model, name)
                with contextlib.suppress(
                    PermissionError
                ):  # only root changes the owner; another user owns the file already
                    os.chown(name, model.stat().st_uid, model.stat().st_gid)
            os.fsync(file.fileno())
        Path(name).replace(path)
    except OSError as error:
        if name:
            Path(name).unlink(missing_ok=True)
        raise UpgradeError(
            f"{path} cannot be written: {error.strerror}",
            residue="the file is as it was",
            hint="check the permissions of its folder",
        ) from error
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
