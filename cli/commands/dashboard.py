"""dashboard: a web page that shows upgrades and takes answers."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from typing import TYPE_CHECKING

import click

from cli.output import careful, end_on_signals, on_terminal, run, say, strong

if TYPE_CHECKING:
    from collections.abc import Iterator

    from web.access.rules import Options
    from web.server import Running


@click.command("dashboard")
@click.option("--listen", default="127.0.0.1:8240", show_default=True, metavar="HOST:PORT", help="Where it listens.")
@click.option("--url", default="", help="How browsers reach it, such as https://upgrade.example.net (behind a proxy).")
@click.option(
    "--password-file", default="", metavar="FILE", help="Names and passwords, as `htpasswd -B` writes them; mode 0600."
)
@click.option("--trust-header", default="", metavar="NAME", help="The header in which your proxy names the user.")
@click.option(
    "--trust-from", multiple=True, metavar="ADDRESS", help="Address or network of the proxy; can be repeated."
)
@click.option("--tls-cert", default="", metavar="FILE", help="Speak https with this certificate chain (PEM).")
@click.option("--tls-key", default="", metavar="FILE", help="The certificate's key, if it is another file.")
@click.option("--read-only", is_flag=True, help="Show everything, answer nothing.")
def dashboard_command(
    listen: str,
    url: str,
    password_file: str,
    trust_header: str,
    trust_from: tuple[str, ...],
    tls_cert: str,
    tls_key: str,
    *,
    read_only: bool,
) -> None:
    """Show upgrades in a browser, and answer their gates there. Runs until Ctrl-C; upgrades do not depend on it.

    Prints a link that works once and opens a session of 12 hours for your user. The dashboard is reachable from this
    machine only. From other machines it needs --password-file, or a proxy that names the user.

    \b
    Examples:
      komodo-upgrade dashboard
      ssh -L 8240:127.0.0.1:8240 admin.example.net komodo-upgrade dashboard
      komodo-upgrade dashboard --read-only
      komodo-upgrade dashboard --listen 10.0.0.5:8240 --password-file users \\
        --url https://upgrade.example.net:8240 --tls-cert cert.pem --tls-key key.pem
      komodo-upgrade dashboard --listen 10.0.0.5:8240 --url https://upgrade.example.net \\
        --trust-header Remote-User --trust-from 10.0.0.2
    """
    from web.access.rules import Options

    options = Options(
        listen=listen,
        url=url,
        password_file=password_file,
        trust_header=trust_header,
        trust_from=trust_from,
        read_only=read_only,
        encrypted=bool(tls_cert),
    )
    end_on_signals()
    run(_dashboard(options, tls_cert, tls_key))


async def _dashboard(options: Options, certificate: str, key: str) -> None:
    from cli.session import open_session
    from service.connection import actor
    from web.access.rules import rules, warnings
    from web.server import serve

    found = rules(options)
    for text in warnings(found):
        say(careful(f"warning: {text}"))
    session = await open_session(only_existing=True)
    async with serve(session.client, found, actor(), certificate=certificate, key=key) as running:
        show_link(running)
        with another_link_on_enter(running):
            await asyncio.Event().wait()


def show_link(running: Running) -> None:
    """Print what to open."""
    click.echo(strong(running.link()))
    if running.rules.by_token:
        say("open this link within your browser; it works once. Enter: another link. Ctrl-C: end")


@contextlib.contextmanager
def another_link_on_enter(running: Running) -> Iterator[None]:
    """On a terminal, Enter prints another link, for a second browser."""
    if not (on_terminal() and running.rules.by_token):
        yield
        return
    loop = asyncio.get_running_loop()

    def pressed() -> None:
        if sys.stdin.readline():
            show_link(running)
        else:
            loop.remove_reader(sys.stdin)

    loop.add_reader(sys.stdin, pressed)
    try:
        yield
    finally:
        loop.remove_reader(sys.stdin)
