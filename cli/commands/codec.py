"""codec: the key ring of this machine, and tools that know it."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import secrets
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cli.options import output_option
from cli.output import data, run, say
from model.errors import KeyRingError

if TYPE_CHECKING:
    from service.codec.key_ring import KeyRing

TOKEN_ENV = "KOMODO_UPGRADE_CODEC_TOKEN"  # noqa: S105 - the name of a variable
DEFAULT_PORT = 8888


@click.group("codec")
def codec_command() -> None:
    """Encryption of what Temporal keeps: rotate the key, serve Temporal's own tools, encrypt one message.

    The embedded server's key ring lies in the state folder. For a Temporal of your own the workers and the commands
    share one that KOMODO_UPGRADE_KEY_RING, KOMODO_UPGRADE_KEY_RING_FILE or KOMODO_UPGRADE_KEY_RING_COMMAND names.

    \b
    Examples:
      komodo-upgrade codec rotate -o json
      komodo-upgrade codec serve --origin http://127.0.0.1:8233
    """


@codec_command.command("rotate")
@output_option
def rotate_command() -> None:
    """Add a key that encrypts from now on; older keys stay, to read what they encrypted.

    Running workers read the file again when they meet the new key.

    \b
    Example:
      komodo-upgrade codec rotate
    """
    from service.codec import key_ring

    path = _file()
    ring = key_ring.rotate(path)
    key_id, _ = ring.current
    data({"file": str(path), "key": key_id, "keys": len(ring)}, f"key {key_id} encrypts from now on ({path})")


@codec_command.command("serve")
@click.option("--port", type=click.IntRange(0, 65535), default=DEFAULT_PORT, show_default=True)
@click.option("--origin", default="", metavar="URL", help="Origin of the Temporal UI, such as http://127.0.0.1:8233.")
def serve_command(port: int, origin: str) -> None:
    """Decrypt for the Temporal UI, and decrypt and encrypt for `temporal --codec-endpoint`, on 127.0.0.1 only.

    Every request needs the token in KOMODO_UPGRADE_CODEC_TOKEN; without the variable a new one is made and shown.

    \b
    Example:
      komodo-upgrade codec serve --origin http://127.0.0.1:8233
    """
    run(_serve(port, origin))


@codec_command.command("encode")
@click.option("--workflow-id", required=True, metavar="ID", help="The workflow that the message is for.")
@click.option("--namespace", default="default", show_default=True)
def encode_command(workflow_id: str, namespace: str) -> None:
    """Encrypt one JSON message from standard input, as arguments of `temporal workflow signal`.

    \b
    Example:
      echo '{"verb": "pause", "actor": "alice"}' |
        komodo-upgrade codec encode --workflow-id komodo-upgrade/prod
    """
    from temporalio.api.common.v1 import Payload

    from service.codec.server import encode_for

    text = sys.stdin.read()
    try:
        json.loads(text)
    except ValueError as error:
        raise click.UsageError(f"standard input is not JSON: {error}") from None
    plain = Payload(metadata={"encoding": b"json/plain"}, data=text.encode())
    sealed = encode_for(_ring(), namespace, workflow_id, plain)
    metadata = {name: value.decode() for name, value in sealed.metadata.items()}
    body = base64.b64encode(sealed.data).decode()
    words = ["--workflow-id", workflow_id, "--input-base64", "--input", body]
    for name, value in sorted(metadata.items()):
        words += ["--input-meta", f"{name}={value}"]
    data({"metadata": metadata, "data": body}, shlex.join(words))


async def _serve(port: int, origin: str) -> None:
    from service.codec.server import CodecServer

    token = os.environ.get(TOKEN_ENV)
    if token is None:
        token = secrets.token_urlsafe(24)
        say(f"token: {token}")
    elif not token.strip():
        raise click.UsageError(f"{TOKEN_ENV} is empty; give it a token, or unset it: then one is made and shown")
    server = await CodecServer(ring=_ring(), token=token, origin=origin.rstrip("/"), port=port).start()
    say(f"codec server at http://127.0.0.1:{server.sockets[0].getsockname()[1]}; Ctrl-C ends it")
    async with server:
        try:
            await server.serve_forever()
        except asyncio.CancelledError:
            say("ended")


def _file() -> Path:
    """The file of the key ring in use: the one that a variable names, else the embedded server's."""
    from service.codec import key_ring
    from service.connection import configured
    from service.embedded.state import StateDir

    if os.environ.get(key_ring.ENV_FILE):
        return Path(os.environ[key_ring.ENV_FILE])
    if key_ring.from_environment() is not None:
        raise KeyRingError(
            f"the key ring of this shell is not in a file that {key_ring.ENV_FILE} names",
            hint="put a new key (32 random bytes in base64) in front of the others where they are kept",
        )
    if configured():
        raise KeyRingError(
            "this shell uses a Temporal of your own, and no variable names its key ring",
            hint=f"name it: {', '.join(key_ring.VARIABLES)}; or unset TEMPORAL_* to use the embedded server's",
        )
    return StateDir().make().key_ring


def _ring() -> KeyRing:
    from service.codec import key_ring

    found = key_ring.from_environment()
    if found is not None:
        return found
    path = _file()
    if not path.exists():
        raise KeyRingError("no key ring is known here", hint="the embedded server makes one when it first starts")
    return key_ring.from_file(path)
