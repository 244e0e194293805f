"""Stand-ins for curl and wget: they reach the release site, the hosts' own HTTP ports, and local files."""

from __future__ import annotations

import asyncio
from pathlib import Path
from urllib.parse import urlsplit

from sandbox.machine.call import Call
from sandbox.machine.disks import FULL
from sandbox.releases import Answer
from sandbox.web import fetch

_CURL_VALUED = frozenset(
    {"-o", "--output", "-H", "--header", "-d", "--data", "-X", "--request", "--connect-timeout", "--retry", "-m",
     "--max-time", "--retry-delay", "-w", "--write-out", "-A", "--user-agent", "--retry-max-time", "-u", "--limit-rate",
     "-C", "--continue-at", "--speed-limit", "-y", "-Y", "--speed-time", "--max-filesize", "--proto", "--proto-redir",
     "--unix-socket"}
)  # fmt: skip
_SITES = {"github.com", "api.github.com", "objects.githubusercontent.com", "raw.githubusercontent.com"}
_PAGE = b"<!DOCTYPE html>\n<html><head><title>Sign in to the guest network</title></head></html>\n"


async def curl(call: Call) -> int:
    """`curl -fsSL [-o FILE] URL`."""
    url, target, flags = _curl_words(call.argv)
    if "--unix-socket" in call.argv:
        return 7  # no simulated daemon listens on a socket
    fail, silent, show = "f" in flags, "s" in flags, "S" in flags
    loud = not silent or show
    if not url:
        call.err("curl: (2) no URL specified\n")
        return 2
    answer = await _get(call, url)
    if answer is None:
        if loud:
            call.err(f"curl: (6) Could not resolve host: {urlsplit(url).hostname}\n")
        return 6
    if not answer.status:
        call.err("curl: (28) Operation too slow. Less than 1 bytes/sec transferred the last 60 seconds\n")
        return 28
    if answer.status >= 400 and fail:
        if loud:
            call.err(f"curl: (22) The requested URL returned error: {answer.status}\n")
        return 22
    if not target or target == "-":
        call.out(answer.body)
        return 0
    problem = _store(call, Path(call.cwd) / target, answer.body)
    if problem:
        if loud:
            call.err("curl: (23) Failure writing output to destination\n")
        return 23
    return 0


def _curl_words(argv: list[str]) -> tuple[str, str, set[str]]:
    url, target, flags = "", "", set[str]()
    rest = list(argv)
    while rest:
        word = rest.pop(0)
        name, equals, value = word.partition("=")
        if word in _CURL_VALUED or (equals and name in _CURL_VALUED):
            value = value if equals else (rest.pop(0) if rest else "")
            if name in {"-o", "--output"}:
                target = value
        elif word.startswith("--"):
            flags.add({"--fail": "f", "--silent": "s", "--show-error": "S", "--location": "L"}.get(word, word))
        elif word.startswith("-") and len(word) > 1:
            letters = word[1:]
            flags.update(letters)
            if letters[-1] == "o" and rest:
                target = rest.pop(0)
        else:
            url = word
    return url, target, flags


async def wget(call: Call) -> int:
    """`wget -q -O FILE URL`."""
    url, target = "", ""
    rest = list(call.argv)
    while rest:
        word = rest.pop(0)
        if word == "-O" or (word.startswith("-") and not word.startswith("--") and word.endswith("O")):
            target = rest.pop(0) if rest else ""
        elif not word.startswith("-"):
            url = word
    answer = await _get(call, url)
    if answer is None:
        call.err(f"wget: unable to resolve host address ‘{urlsplit(url).hostname}’\n")
        return 4
    if answer.status >= 400:
        call.err(f"ERROR {answer.status}: {'Forbidden' if answer.status == 403 else 'Not Found'}.\n")
        return 8
    if target in {"", "-"}:
        call.out(answer.body)
        return 0
    if why := _store(call, Path(call.cwd) / target, answer.body):
        call.err(f"{target}: {why.capitalize()}\n\nCannot write to ‘{target}’ ({why.capitalize()}).\n")
        return 3
    return 0


async def _get(call: Call, url: str) -> Answer | None:
    faults, name = call.host.world.faults, call.host.name
    parts = urlsplit(url)
    site = parts.hostname in _SITES or url.startswith(call.host.world.releases.base)
    if site and (hangs := faults.strike("download-hangs", name)):
        seconds = float(hangs.options.get("seconds", 60))
        if "--speed-time" not in call.argv:
            await asyncio.Event().wait()
        await asyncio.sleep(call.host.world.scaled(seconds))
        return Answer(0, b"", "")
    if site and faults.strike("download-403", name):
        return Answer(403, b"rate limit exceeded\n", "text/plain")
    if site and faults.strike("download-wrong-file", name):
        return Answer(200, _PAGE, "text/html")
    if site:
        return call.host.world.releases.get(parts.path)
    if parts.scheme == "file":
        return _file(parts.path)
    if parts.hostname in {"localhost", "127.0.0.1", call.host.address} or (parts.hostname or "").startswith("127."):
        here = call.host.address if parts.hostname in {"localhost", "127.0.0.1"} else str(parts.hostname)
        status, _, body = await fetch(here, parts.port or 80, "GET", parts.path or "/")
        return Answer(status, body)
    return None


def _file(path: str) -> Answer:
    return Answer(200, Path(path).read_bytes())


def _store(call: Call, path: Path, body: bytes) -> str:
    """Write a download. Why it failed (on a full disk a part of it stays, as with the real tool), or nothing."""
    why = call.host.refuses(path)
    if not why:
        path.write_bytes(body)
    elif why == FULL.lower():
        path.write_bytes(body[: len(body) // 3])
    return why
