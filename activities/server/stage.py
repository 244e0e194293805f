"""The new agent's binary on a server: downloaded, proven, and not yet in place."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import NoReturn

from activities.heartbeat import attach, invalidate, lock, send_heartbeat
from activities.server.artifacts import cache_folder, download
from activities.server.survey import facts_of
from hosts.exec.script import Script, parse
from hosts.host import Completed, Host
from komodo import releases
from model.errors import ArtifactError, CommandFailed, DownloadFailed
from model.steps import ServerStep, StagedAgent

NOT_DOWNLOADED, NOT_EXPECTED, DOES_NOT_RUN = 76, 77, 78
"""Exit codes of stage_agent.sh."""


class Artifacts:
    """Stages agent binaries. A worker downloads each of them at most once."""

    def __init__(self) -> None:
        self._downloading: dict[str, asyncio.Lock] = {}

    async def stage(self, host: Host, step: ServerStep) -> StagedAgent:
        """Put the target's binary into the run folder; its digest and `--version` are proven on that host.

        Raises DownloadFailed, ArtifactError (with a remedy where the system is too old), DiskFull, HostError.
        """
        if step.agent.method == "script":
            source = f"Komodo's setup script of v{step.target}, fetched when the agent is switched"
            return StagedAgent(path="", sha256="", version=step.target, source=source)
        url = releases.asset_url(step.agent.url, step.target, step.facts.arch)
        expected = step.facts.artifact_sha256 or step.agent.sha256.get(step.facts.arch, "")
        if not expected:
            raise ArtifactError(
                f"the plan has no sha256 for {url}",
                host=host.spec.name,
                hint=f'add sha256 = {{ {step.facts.arch} = "…" }} under [agent] in the fleet file',
            )
        folder = step.op.folder(host.spec.state_dir)
        path = f"{folder}/staged/periphery-{step.target}-{step.facts.arch}"
        done, how = await self._staged(host, step, path, url, expected)
        output = parse(done.text)
        sha256, version = output["sha256"][0], releases.printed_version(output["version"][0])
        releases.check_artifact(
            bytes.fromhex(output["head"][0]), int(output["bytes"][0]), arch=step.facts.arch, source=url
        )
        if version != step.target:
            raise ArtifactError(
                f"{url} says it is {version or 'no version at all'}, wanted {step.target}",
                host=host.spec.name,
                residue=f"{path}; the running agent is untouched",
                hint="correct url (and sha256) in [agent] of the fleet file",
            )
        return StagedAgent(
            path=path, sha256=sha256, version=version, source=f"{how}; its sha256 is {step.facts.artifact_source}"
        )

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
            # The host tried first, and its reason may be the more useful one: a 404 there, or no internet access for
            # the worker.
            raise DownloadFailed(
                f"{refused.what}; neither could the worker: {error.what}",
                host=host.spec.name,
                residue=refused.residue,
                hint=error.hint if error.what.startswith(url) else refused.hint,
            ) from None
        await host.push(local, path, sha256=sha256, on_progress=send_heartbeat)
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
                    Script.load(
                        "komodo.sh",
                        "server/stage_agent.sh",
                        file=path,
                        expected=expected,
                        url=url,
                        binary=step.facts.binary,
                        old=step.facts.binary_sha256,
                    ),
                    change=step.op.change,
                    timeout=step.timing.download,
                    then=Script.load("komodo.sh", "server/file_facts.sh", path),
                )
            except CommandFailed as error:
                _explain(error, host, url, path)
            there = facts_of(parse(done.after.decode())).get(path)
            if there is not None and there.sha256 == parse(done.text)["sha256"][0]:
                return done
            if again:
                # It was finished earlier and removed since, as an undo on a full disk does: stage it again.
                await invalidate(host, folder, step.op.id(name), change=step.op.change)
        raise ArtifactError(f"{path} disappeared while it was staged", host=host.spec.name, hint="try again")

    async def _on_worker(self, url: str, expected: str, step: ServerStep) -> tuple[Path, str]:
        """The artifact in this worker's cache, by digest. Raises DownloadFailed, ArtifactError."""
        held = self._downloading.setdefault(url, asyncio.Lock())
        await lock(held)
        try:
            cache = cache_folder()
            if await asyncio.to_thread((cache / expected).exists):
                return cache / expected, expected
            return await download(url, expected, cache, arch=step.facts.arch)
        finally:
            held.release()


def _explain(error: CommandFailed, host: Host, url: str, path: str) -> NoReturn:
    """The errors that exit codes of stage_agent.sh stand for."""
    output = error.tail.strip().splitlines()[-1] if error.tail.strip() else error.what
    untouched = "the running agent, untouched"
    if error.code == NOT_DOWNLOADED:
        own = next((line for line in error.tail.splitlines() if line.startswith(("curl: ", "wget: "))), "")
        raise DownloadFailed(
            f"{output}: {own}" if own and own not in output else output,
            host=host.spec.name,
            residue=untouched,
            hint='check url and target in the fleet file; for hosts without internet: download = "worker"',
        ) from None
    if error.code == NOT_EXPECTED:
        raise ArtifactError(
            f"{url}: {output}",
            host=host.spec.name,
            residue=untouched,
            hint="a proxy or login page may stand in between, or sha256 in [agent] is of another version",
        ) from None
    if error.code == DOES_NOT_RUN:
        old = any(word in output for word in ("GLIBC", "libssl", "libcrypto", "GLIBCXX"))
        hint = releases.TOO_OLD if old else f"run it by hand on that host: {path} --version"
        if "ermission denied" in output:
            hint = f"is {path} on a file system mounted noexec? Set state_dir to another one"
        raise ArtifactError(
            f"v2's binary does not run on this host: {output}", host=host.spec.name, residue=untouched, hint=hint
        ) from None
    raise error
