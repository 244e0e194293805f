"""Notices to people: logged, passed to the fleet's command, and sent to notification services by Apprise.

A notice that does not arrive stops nothing. `status` reports what went wrong, without addresses: they hold tokens.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
from dataclasses import replace

from temporalio import activity

from hosts.policy import policy
from hosts.redact import clean
from hosts.secrets import resolve
from hosts.ssh.pool import Hosts
from model.errors import PolicyRefused, SecretMissing
from model.fleet.spec import Event, SecretRef
from model.steps import Done, Notice
from model.text.outside import multi_line, single_line

_log = logging.getLogger(__name__)
_SECONDS = 60.0
_LONGEST = 20_000
_MOST_ADDRESSES = 20
_MENTION = re.compile(r"(?i)@(?=everyone|here|channel|all\b)|<(?=[@!#])")
"""What chat services read as a call to everybody."""
_KINDS = {Event.FAILURE: "failure", Event.REMINDER: "warning", Event.WATCH: "warning"}
_TELL_ADDRESSES = ("apprise", "urllib3", "requests")
"""Libraries whose log lines hold addresses."""


class Notices:
    """Messages to people who are not watching."""

    def __init__(self, hosts: Hosts) -> None:
        """No host is connected to."""

    @activity.defn
    async def notify(self, notice: Notice) -> Done:
        """Send one notice. Returns why it did not arrive somewhere; empty: it did, or this event was not chosen."""
        notice = replace(notice, subject=single_line(notice.subject, 300), text=multi_line(notice.text, _LONGEST))
        _log.info("%s: %s\n%s", notice.fleet, notice.subject, notice.text)
        if notice.event not in notice.notify.events:
            return Done()
        problems: list[str] = []
        if notice.notify.command:
            problems += await _by_command(notice)
        if notice.notify.urls:
            problems += await _by_apprise(notice, notice.notify.urls)
        for problem in problems:
            _log.warning("a notice of %s: %s", notice.fleet, problem)
        return Done(facts=tuple(problems))


async def _by_apprise(notice: Notice, ref: SecretRef) -> list[str]:
    try:
        import apprise
    except ImportError:
        return [f"{ref} needs the package apprise on the worker: install komodo-upgrade with its extra `notify`"]
    try:
        addresses = (await resolve(ref)).split()
    except (SecretMissing, PolicyRefused) as error:
        return [error.what]
    for name in _TELL_ADDRESSES:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    asset = apprise.AppriseAsset(app_id="komodo-upgrade", plugin_paths=[], secure_logging=True)

    async def send(number: int, address: str) -> str:
        service = apprise.Apprise(asset=asset)
        if not service.add(address):
            return f"address {number} of {ref} is none that Apprise knows"
        name = single_line(str(service[0].service_name), 40)
        try:
            async with asyncio.timeout(_SECONDS):
                sent = await service.async_notify(
                    title=_MENTION.sub("", notice.subject),
                    body=_MENTION.sub("", notice.text),
                    notify_type=apprise.NotifyType(_KINDS.get(notice.event, "info")),
                    body_format=apprise.NotifyFormat.TEXT,
                )
        except TimeoutError:
            sent = None
        return "" if sent else f"{name} (address {number} of {ref}) did not take it"

    sending = (send(number, address) for number, address in enumerate(addresses[:_MOST_ADDRESSES], start=1))
    problems = [problem for problem in await asyncio.gather(*sending) if problem]
    if len(addresses) > _MOST_ADDRESSES:
        problems.append(f"{ref} holds {len(addresses)} addresses: only the first {_MOST_ADDRESSES} are used")
    return problems


async def _by_command(notice: Notice) -> list[str]:
    try:
        policy().command(notice.notify.command, "the notify command")
        problem = await _run(notice)
    except PolicyRefused as error:
        problem = f"was not run: {error.what}"
    return [f"the notify command {problem}"] if problem else []


async def _run(notice: Notice) -> str:
    """What went wrong; empty if nothing did."""
    process = await asyncio.create_subprocess_exec(
        "/bin/sh",
        "-c",
        notice.notify.command,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
        env={
            **os.environ,
            "KOMODO_UPGRADE_SUBJECT": notice.subject,
            "KOMODO_UPGRADE_FLEET": notice.fleet,
            "KOMODO_UPGRADE_EVENT": notice.event,
        },
    )
    try:
        async with asyncio.timeout(_SECONDS):
            _, err = await process.communicate(f"{notice.subject}\n\n{notice.text}\n".encode())
    except TimeoutError:
        return f"did not end within {_SECONDS:.0f} s"
    finally:
        if process.returncode is None:
            os.killpg(process.pid, 9)
            await process.wait()
    if process.returncode:
        return f"ended with exit code {process.returncode}: {clean(err.decode(errors='replace'))[:300]}"
    return ""
