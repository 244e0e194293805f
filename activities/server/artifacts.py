"""Agent binaries as files: which digest one must have, and a worker's download of it."""

from __future__ import annotations

import asyncio
import hashlib
import os
import secrets
import time
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path

import httpx2

from activities.heartbeat import lock, send_heartbeat
from komodo import releases
from model.errors import ArtifactError, DownloadFailed
from model.fleet.spec import AgentRelease

ASK_PUBLISHER = timedelta(seconds=8)
KEEP_ANSWER = timedelta(minutes=10)
KEEP_FAILURE = timedelta(seconds=15)
CHUNK = 1024 * 1024
LARGEST_ANSWER = 8 * 1024 * 1024
UNVERIFIED = "not verified by the publisher"


class Digests:
    """The digest that an agent's binary must have, determined once per worker before the plan is made."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[float, str, str]] = {}
        self._unreachable: dict[str, tuple[float, DownloadFailed]] = {}
        self._asking = asyncio.Lock()

    async def required(
        self, agent: AgentRelease, target: str, arch: str, by_host: Callable[[str], Awaitable[str]] | None = None
    ) -> tuple[str, str]:
        """The sha256 and its origin: the fleet file, the publisher's release, or the first download.

        `by_host` downloads a URL on the host and returns its sha256, for a worker that cannot reach it.
        Raises ArtifactError for an address that is not https and has no digest in the fleet file, DownloadFailed.
        """
        if given := agent.sha256.get(arch):
            return given, "as the fleet file requires"
        # Komodo's setup script uses its own address of the binary.
        template = AgentRelease().url if agent.method == "script" else agent.url
        url = releases.asset_url(template, target, arch)
        if not url.startswith("https://"):
            raise ArtifactError(f"{url} is not https, and the fleet file has no sha256 for {arch}")
        await lock(self._asking)
        try:
            until, sha256, origin = self._known.get(url, (0.0, "", ""))
            if time.monotonic() >= until:
                until, sha256, origin = await self._determine(url, arch, by_host)
                self._known[url] = until, sha256, origin
            return sha256, origin
        finally:
            self._asking.release()

    async def _determine(
        self, url: str, arch: str, by_host: Callable[[str], Awaitable[str]] | None
    ) -> tuple[float, str, str]:
        # All hosts of a survey ask at the same time. They share one request, so that they do not wait for the same
        # timeout in turn.
        until, failure = self._unreachable.get(url, (0.0, None))
        if failure is None or time.monotonic() >= until:
            if published := await _published_digest(url):
                return time.monotonic() + KEEP_ANSWER.total_seconds(), published, "as GitHub publishes it"
            try:
                _, recorded = await download(url, "", cache_folder(), arch=arch)
            except DownloadFailed as error:
                failure = error
                self._unreachable[url] = time.monotonic() + KEEP_FAILURE.total_seconds(), error
            else:
                return float("inf"), recorded, f"{UNVERIFIED}, recorded from the first download"
        if by_host is None:
            raise failure
        return float("inf"), await by_host(url), f"{UNVERIFIED}, recorded from the first download by a host"


async def _published_digest(url: str) -> str:
    """GitHub's digest of the asset; empty if there is none, or GitHub does not answer."""
    api = releases.release_api(url)
    if not api:
        return ""
    body = bytearray()
    try:
        async with (
            asyncio.timeout(ASK_PUBLISHER.total_seconds()),
            httpx2.AsyncClient(follow_redirects=True, event_hooks={"request": [_require_https]}) as client,
            client.stream("GET", api, headers={"Accept": "application/vnd.github+json"}) as answer,
        ):
            async for chunk in answer.aiter_bytes():
                body += chunk
                if len(body) > LARGEST_ANSWER:
                    return ""
        return releases.published_digest(bytes(body), url) if answer.status_code == 200 else ""
    except (httpx2.HTTPError, TimeoutError):
        return ""


def cache_folder() -> Path:
    """Where a worker keeps downloaded binaries."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "komodo-upgrade" / "artifacts"


async def download(url: str, expected: str, folder: Path, *, arch: str) -> tuple[Path, str]:
    """Download an artifact into `folder`, named by its digest. Raises DownloadFailed, ArtifactError."""
    part = folder / f"part-{secrets.token_hex(8)}"
    try:
        await asyncio.to_thread(folder.mkdir, parents=True, exist_ok=True)
        head, size, found = await _fetch(url, part)
        releases.check_artifact(head, size, arch=arch, source=url)
        _check_digest(url, found, expected)
        await asyncio.to_thread(part.rename, folder / found)
    except BaseException:
        await asyncio.to_thread(part.unlink, missing_ok=True)
        raise
    return folder / found, found


def _check_digest(url: str, found: str, expected: str) -> None:
    if expected and found != expected:
        raise ArtifactError(
            f"{url} has the sha256 {found}, expected {expected}",
            hint="the file has changed since the plan was made, or sha256 under [agent] is of another version",
        )


async def _require_https(request: httpx2.Request) -> None:
    if request.url.scheme != "https":
        raise httpx2.UnsupportedProtocol(f"a redirect leaves https: {request.url}")


async def _fetch(url: str, part: Path) -> tuple[bytes, int, str]:
    """The first bytes, the size and the sha256 of what was written to `part`."""
    digest, size, head = hashlib.sha256(), 0, b""
    hooks = {"request": [_require_https]} if url.startswith("https://") else {}
    try:
        async with (
            httpx2.AsyncClient(timeout=30, follow_redirects=True, event_hooks=hooks) as client,
            client.stream("GET", url) as answer,
        ):
            answer.raise_for_status()
            with await asyncio.to_thread(part.open, "wb") as file:
                async for chunk in answer.aiter_bytes(CHUNK):
                    head = head or chunk[:64]
                    size += len(chunk)
                    if size > releases.LARGEST_AGENT:
                        limit = releases.LARGEST_AGENT // CHUNK
                        raise ArtifactError(f"{url} is larger than {limit} MiB", hint="check url under [agent]")
                    digest.update(chunk)
                    await asyncio.to_thread(file.write, chunk)
                    send_heartbeat()
    except httpx2.HTTPStatusError as error:
        status = error.response.status_code
        raise DownloadFailed(f"{url} answers {status}", hint="check url and target in the fleet file") from None
    except (httpx2.HTTPError, httpx2.InvalidURL) as error:
        raise DownloadFailed(
            f"the worker cannot download {url}: {type(error).__name__} {error}".rstrip(),
            hint="is the worker behind a proxy? Set HTTPS_PROXY, or url under [agent]",
        ) from None
    return head, size, digest.hexdigest()
