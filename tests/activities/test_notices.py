"""Notices: by a command, and to notification services, which a local HTTP server plays."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from activities.fleet.notices import Notices
from hosts.ssh.pool import Hosts
from model.fleet.spec import Event, Notify, SecretRef
from model.steps import Notice

TOKEN = "tk-9f8e7d6c5b4a"


@contextmanager
def service(status: int = 200) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Its address as Apprise has it (`json://`), and the messages that it has received."""
    received: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(status)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"json://127.0.0.1:{server.server_port}/{TOKEN}", received
    finally:
        server.shutdown()
        server.server_close()


async def sent(notify: Notify, event: Event = Event.GATE, text: str = "one line") -> tuple[str, ...]:
    notice = Notice(fleet="prod", event=event, subject="Upgrade Core of prod?", text=text, notify=notify)
    return (await Notices(Hosts()).notify(notice)).facts


def addresses(folder: Path, *lines: str) -> Notify:
    file = folder / "notify.urls"
    file.write_text("\n".join(lines) + "\n")
    file.chmod(0o600)
    return Notify(urls=SecretRef(file=str(file)))


async def test_a_command_gets_the_message(tmp_path: Path) -> None:
    out = tmp_path / "said"
    assert await sent(Notify(command=f"(echo $KOMODO_UPGRADE_EVENT; cat) > '{out}'"), Event.END) == ()
    assert out.read_text() == "end\nUpgrade Core of prod?\n\none line\n"
    assert "exit code 3" in (await sent(Notify(command="exit 3")))[0]


async def test_every_service_gets_the_message(tmp_path: Path) -> None:
    with service() as (one, first), service() as (two, second):
        assert await sent(addresses(tmp_path, one, two), Event.FAILURE) == ()
    assert [len(first), len(second)] == [1, 1]
    assert first[0]["title"] == "Upgrade Core of prod?"
    assert first[0]["message"] == "one line"
    assert first[0]["type"] == "failure"


async def test_a_text_from_a_host_calls_nobody_and_holds_no_control_characters(tmp_path: Path) -> None:
    with service() as (address, received):
        text = "\x1b[2J@everyone <@123> \u202eabc, ask ops@example.net"
        assert await sent(addresses(tmp_path, address), text=text) == ()
    body = received[0]["message"]
    assert "@everyone" not in body
    assert "<@" not in body
    assert "\x1b" not in body
    assert "\u202e" not in body
    assert "ops@example.net" in body


async def test_what_does_not_arrive_is_reported_without_the_address(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with service(500) as (broken, _), service() as (good, received):
        problems = await sent(addresses(tmp_path, broken, f"nonsense://{TOKEN}", good))
    assert len(received) == 1, "the others get it all the same"
    assert len(problems) == 2
    assert "address 1 of" in problems[0]
    assert "did not take it" in problems[0]
    assert "address 2 of" in problems[1]
    assert TOKEN not in " ".join(problems) + caplog.text


async def test_only_the_chosen_events_are_sent(tmp_path: Path) -> None:
    with service() as (address, received):
        urls = addresses(tmp_path, address).urls
        assert await sent(Notify(urls=urls, events=(Event.END,), command="exit 1"), Event.GATE) == ()
    assert received == []


async def test_a_file_that_is_missing_is_reported(tmp_path: Path) -> None:
    [problem] = await sent(Notify(urls=SecretRef(file=str(tmp_path / "gone"))))
    assert "cannot be read by the worker" in problem
