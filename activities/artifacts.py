"""The new agent's binary on a server: downloaded, proven, and not yet in place."""

from __future__ import annotations

import asyncio
import hashlib
import os
import secrets
import time
from datetime import timedelta
from pathlib import Path
from typing import NoReturn

import httpx2
from temporalio import activity

from activities.agent_host import facts_of
from activities.signs import attach, beat, lock, void
from hosts.host import Completed, Host
from hosts.pool import Hosts
from hosts.script import Script, parse
from komodo import releases
from model.errors import ArtifactError, CommandFailed, DownloadFailed
from model.steps import ServerStep, StagedAgent

NOT_DOWNLOADED, NOT_EXPECTED, DOES_NOT_RUN = 76, 77, 78
"""Exit codes of stage_agent.sh."""
ASK_PUBLISHER = timedelta(seconds=8)
KEEP_ANSWER = timedelta(minutes=10)
CHUNK = 1024 * 1024


class Artifacts:
    """Stages agent binaries. Holds what the publisher said about digests, and downloads each artifact once a worker."""

    def __init__(self, hosts: Hosts) -> None:
        self._hosts = hosts
        self._published: dict[str, tuple[float, str]] = {}
        self._asking = asyncio.Lock()
        self._downloading: dict[str, asyncio.Lock] = {}

    @activity.defn
    async def stage_server(self, step: ServerStep) -> StagedAgent:
        """The target's binary in the run folder, its digest and `--version` proven on that very host.

        Raises DownloadFailed, ArtifactError (with the way out where the system is too old), DiskFull, HostError.
        """
        host = await self._hosts.get(step.server.host)
        if step.agent.method == "script":
            source = f"Komodo's setup script of v{step.target}, fetched when the agent is switched"
            return StagedAgent(path="", sha256="", version=step.target, source=source)
        url = releases.asset_url(step.agent.url, step.target, step.facts.arch)
        expected = step.agent.sha256.get(step.facts.arch, "")
        verified = "as the fleet file says"
        if not expected:
            expected = await self._digest_of_publisher(url)
            verified = "as GitHub publishes it" if expected else "not verified by the publisher"
        folder = step.op.folder(host.spec.state_dir)
        path = f"{folder}/staged/periphery-{step.target}-{step.facts.arch}"
        done, how = await self._staged(host, step, path, url, expected)
        said = parse(done.text)
        sha256, version = said["sha256"][0], releases.version_said(said["version"][0])
        releases.check_artifact(bytes.fromhex(said["head"][0]), int(said["bytes"][0]), arch=step.facts.arch, source=url)
        if version != step.target:
            raise ArtifactError(
                f"{url} says it is {version or 'no version at all'}, wanted {step.target}",
                host=host.spec.name,
                left=f"{path}; the running agent is untouched",
                cure="correct url (and sha256) in [agent] of the fleet file",
            )
        return StagedAgent(path=path, sha256=sha256, version=version, source=f"{how}; its sha256 is {verified}")

    async def _staged(self, host: Host, step: ServerStep, path: str, url: str, expected: str) -> tuple[Completed, str]:
        refused: DownloadFailed | None = None
        if step.agent.download != "worker":
            try:
                done = await self._prove(host, step, "stage", path, expected, url)
            except DownloadFailed as error:
                if step.agent.download == "host":
                    raise
                refused = error
            else:
                return done, f"downloaded by the host from {url}"
        try:
            local, sha256 = await self._on_worker(url, expected, step)
        except DownloadFailed as error:
            if refused is None:
                raise
            # The host was first, and its reason may be the better one: a 404 there, no way out for the worker.
            raise DownloadFailed(
                f"{refused.what}; neither could the worker: {error.what}",
                host=host.spec.name,
                left=refused.left,
                cure=error.cure if error.what.startswith(url) else refused.cure,
            ) from None
        await host.push(local, path, sha256=sha256, on_progress=beat)
        done = await self._prove(host, step, "stage-pushed", path, sha256, "")
        return done, f"downloaded by the worker from {url} and pushed"

    async def _prove(self, host: Host, step: ServerStep, name: str, path: str, expected: str, url: str) -> Completed:
        folder = step.op.folder(host.spec.state_dir)
        for again in (True, False):
            try:
                done = await attach(
                    host,
                    step.op.id(name),
                    folder,
                    Script.load("komodo.sh", "stage_agent.sh"),
                    path,
                    expected,
                    url,
                    step.facts.binary,
                    step.facts.binary_sha256,
                    change=step.op.change,
                    timeout=step.clocks.download,
                    then=(Script.load("komodo.sh", "file_facts.sh"), (path,)),
                )
            except CommandFailed as error:
                _explain(error, host, url, path)
            there = facts_of(parse(done.after.decode())).get(path)
            if there is not None and there.sha256 == parse(done.text)["sha256"][0]:
                return done
            if again:
                # Finished earlier, and removed since (an undo on a full disk does that): make it anew.
                await void(host, folder, step.op.id(name), change=step.op.change)
        raise ArtifactError(f"{path} vanished while it was staged", host=host.spec.name, cure="try again")

    async def _digest_of_publisher(self, url: str) -> str:
        """GitHub's digest of the asset; empty where there is none, or GitHub cannot be asked (best effort)."""
        api = releases.release_api(url)
        if not api:
            return ""
        async with self._asking:
            at, digest = self._published.get(url, (0.0, ""))
            if at and time.monotonic() - at < KEEP_ANSWER.total_seconds():
                return digest
            digest = ""
            try:
                async with httpx2.AsyncClient(timeout=ASK_PUBLISHER.total_seconds(), follow_redirects=True) as client:
                    answer = await client.get(api, headers={"Accept": "application/vnd.github+json"})
                if answer.status_code == 200:
                    digest = releases.published_digest(answer.json(), url)
            except (httpx2.HTTPError, ValueError):
                pass
            self._published[url] = (time.monotonic(), digest)
            return digest

    async def _on_worker(self, url: str, expected: str, step: ServerStep) -> tuple[Path, str]:
        """The artifact in this worker's cache, by digest. Raises DownloadFailed, ArtifactError."""
        held = self._downloading.setdefault(url, asyncio.Lock())
        await lock(held)
        try:
            cache = cache_folder()
            if expected:
                there = await asyncio.to_thread((cache / expected).exists)
                if there:
                    return cache / expected, expected
            return await download(url, expected, cache, arch=step.facts.arch)
        finally:
            held.release()


def cache_folder() -> Path:
    """Where a worker keeps downloaded binaries."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "komodo-upgrade" / "artifacts"


async def download(url: str, expected: str, folder: Path, *, arch: str) -> tuple[Path, str]:
    """Fetches an artifact into `folder`, named by its digest. Raises DownloadFailed, ArtifactError."""
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
            cure="somebody changed it, or sha256 in [agent] is of another version",
        )


async def _fetch(url: str, part: Path) -> tuple[bytes, int, str]:
    """The first bytes, the size and the sha256 of what was written to `part`."""
    digest, size, head = hashlib.sha256(), 0, b""
    try:
        async with (
            httpx2.AsyncClient(timeout=30, follow_redirects=True) as client,
            client.stream("GET", url) as answer,
        ):
            answer.raise_for_status()
            with await asyncio.to_thread(part.open, "wb") as file:
                async for chunk in answer.aiter_bytes(CHUNK):
                    head = head or chunk[:64]
                    size += len(chunk)
                    digest.update(chunk)
                    await asyncio.to_thread(file.write, chunk)
                    beat()
    except httpx2.HTTPStatusError as error:
        status = error.response.status_code
        raise DownloadFailed(f"{url} answers {status}", cure="check url and target in the fleet file") from None
    except (httpx2.HTTPError, httpx2.InvalidURL) as error:
        raise DownloadFailed(
            f"the worker cannot download {url}: {type(error).__name__} {error}".rstrip(),
            cure="is the worker behind a proxy? HTTPS_PROXY, or url in [agent]",
        ) from None
    return head, size, digest.hexdigest()


def _explain(error: CommandFailed, host: Host, url: str, path: str) -> NoReturn:
    """Exit codes of stage_agent.sh as what they mean."""
    said = error.tail.strip().splitlines()[-1] if error.tail.strip() else error.what
    untouched = "the running agent, untouched"
    if error.code == NOT_DOWNLOADED:
        own = next((line for line in error.tail.splitlines() if line.startswith(("curl: ", "wget: "))), "")
        raise DownloadFailed(
            f"{said}: {own}" if own and own not in said else said,
            host=host.spec.name,
            left=untouched,
            cure='check url and target in the fleet file; for hosts without internet: download = "worker"',
        ) from None
    if error.code == NOT_EXPECTED:
        raise ArtifactError(
            f"{url}: {said}",
            host=host.spec.name,
            left=untouched,
            cure="a proxy or login page may stand in between, or sha256 in [agent] is of another version",
        ) from None
    if error.code == DOES_NOT_RUN:
        old = any(word in said for word in ("GLIBC", "libssl", "libcrypto", "GLIBCXX"))
        cure = releases.TOO_OLD if old else f"run it by hand on that host: {path} --version"
        if "ermission denied" in said:
            cure = f"is {path} on a file system mounted noexec? Set state_dir to another one"
        raise ArtifactError(
            f"v2's binary does not run on this host: {said}", host=host.spec.name, left=untouched, cure=cure
        ) from None
    raise error
