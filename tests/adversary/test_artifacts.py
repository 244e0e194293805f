"""Attack: a mirror, or somebody on the way to it, gives hosts another binary than the one that was approved."""

from __future__ import annotations

import asyncio
import re
import subprocess
from dataclasses import replace
from pathlib import Path

import httpx2
import pytest

from activities.server import artifacts
from activities.server.artifacts import UNVERIFIED, Digests
from hosts.exec.script import Script
from model.errors import ArtifactError, DownloadFailed, FleetFileError
from model.facts import ComposeProject, ContainerFacts, CoreFacts, Install, ServerFacts, ServiceFacts
from model.fleet.file import parse
from model.fleet.spec import AgentRelease, Download
from model.planning import make_plan
from model.text.plan import artifact_lines
from tests.activities.server_fleet import Fleet, fleet_of
from tests.model.broken_fleet_files import CORE, GOOD, HEAD, SERVER
from tests.shells import SHELL, words_of

MIRROR = 'url = "http://mirror.example.net/periphery-{version}-{arch}"\n'
TWO = HEAD + CORE + SERVER + SERVER.replace("web-1", "web-2").replace("10.0.0.11", "10.0.0.12")


def agent(name: str, sha256: str) -> ServerFacts:
    return ServerFacts(
        name=name,
        install=Install.SYSTEMD,
        reachable=True,
        version="1.19.5",
        arch="x86_64",
        artifact_sha256=sha256,
        artifact_source="as GitHub publishes it",
    )


def in_container(name: str, digit: str) -> ServerFacts:
    image = "ghcr.io/moghtech/komodo-periphery"
    service = ServiceFacts(
        service="periphery",
        container="periphery",
        image=f"{image}:1.19.5",
        image_id="sha256:old",
        target_image=f"{image}:2.3.2",
        target_digest=f"sha256:{digit * 64}",
    )
    project = ComposeProject(name="agent", directory="/opt/agent", files=("/opt/agent/compose.yaml",))
    container = ContainerFacts(project=project, service=service, in_core_project=False)
    return ServerFacts(
        name=name, install=Install.CONTAINER, reachable=True, version="1.19.5", arch="x86_64", container=container
    )


@pytest.mark.parametrize(
    "line", [MIRROR, 'url = "file:///tmp/periphery"\n', 'script_url = "http://mirror.example.net/setup.py"\n']
)
def test_without_https_a_digest_is_required(line: str) -> None:
    with pytest.raises(FleetFileError, match="is not https"):
        parse(f"{GOOD}[agent]\n{line}", Path("/srv/fleet.toml"))


def test_with_a_digest_a_mirror_may_use_http() -> None:
    digest = f'sha256 = {{ x86_64 = "{"a" * 64}" }}\n'
    assert parse(f"{GOOD}[agent]\n{MIRROR}{digest}", Path("/srv/fleet.toml")).agent.url.startswith("http://mirror")


async def test_an_architecture_without_a_digest_is_refused_too() -> None:
    release = AgentRelease(url="http://mirror.example.net/{arch}", sha256={"aarch64": "a" * 64})
    with pytest.raises(ArtifactError, match="no sha256 for x86_64"):
        await Digests().required(release, "2.3.2", "x86_64")


async def test_a_redirect_does_not_leave_https() -> None:
    with pytest.raises(httpx2.HTTPError, match="leaves https"):
        await artifacts._require_https(httpx2.Request("GET", "http://mirror.example.net/periphery"))
    await artifacts._require_https(httpx2.Request("GET", "https://objects.githubusercontent.com/periphery"))


async def test_a_digest_that_nobody_publishes_is_recorded_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    downloads = []

    async def download(url: str, expected: str, folder: Path, *, arch: str) -> tuple[Path, str]:
        downloads.append(url)
        return tmp_path, f"{len(downloads):064}"

    monkeypatch.setattr(artifacts, "download", download)
    release = AgentRelease(url="https://mirror.example.net/periphery-{version}-{arch}")
    digests = Digests()
    found = await asyncio.gather(*(digests.required(release, "2.3.2", "x86_64") for _ in range(5)))
    assert downloads == ["https://mirror.example.net/periphery-2.3.2-x86_64"]
    assert {sha256 for sha256, _ in found} == {f"{1:064}"}
    assert all(UNVERIFIED in origin for _, origin in found)


def test_the_plan_is_bound_to_the_binary_and_shows_it() -> None:
    fleet = parse(TWO, Path("/srv/fleet.toml"))
    plans = [
        make_plan(fleet, "c", CoreFacts(reachable=True), {n: agent(n, digit * 64) for n in ("web-1", "web-2")})
        for digit in "ab"
    ]
    assert plans[0].digest != plans[1].digest
    assert artifact_lines(plans[0]) == (f"agent 2.3.2 for x86_64: sha256 {'a' * 64}, as GitHub publishes it",)


def test_hosts_of_one_architecture_get_the_same_binary() -> None:
    fleet = parse(TWO, Path("/srv/fleet.toml"))
    facts = {"web-1": agent("web-1", "a" * 64), "web-2": agent("web-2", "b" * 64)}
    refused = make_plan(fleet, "c", CoreFacts(reachable=True), facts).refusals
    assert [(f.code, f.subject) for f in refused] == [("artifacts-differ", "web-2")]


def test_hosts_get_the_same_image() -> None:
    """Each host asks the registry, which may give every host another answer."""
    fleet = parse(TWO, Path("/srv/fleet.toml"))
    facts = {"web-1": in_container("web-1", "a"), "web-2": in_container("web-2", "b")}
    refused = make_plan(fleet, "c", CoreFacts(reachable=True), facts).refusals
    assert [(f.code, f.subject) for f in refused] == [("artifacts-differ", "web-2")]
    assert "periphery:2.3.2" in refused[0].text
    facts["web-2"] = in_container("web-2", "a")
    assert not make_plan(fleet, "c", CoreFacts(reachable=True), facts).refusals


@pytest.fixture
async def made(tmp_path: Path) -> Fleet:  # type: ignore[misc]
    async with fleet_of(tmp_path) as fleet:
        yield fleet


async def test_a_binary_that_changes_after_the_plan_is_refused(made: Fleet) -> None:
    step = await made.step("web-1")
    for download in (Download.HOST, Download.WORKER):
        changed = replace(step, facts=replace(step.facts, artifact_sha256="0" * 64))
        with pytest.raises(ArtifactError, match="expected 0000"):
            await made.stage(replace(changed, agent=replace(step.agent, download=download)))


def test_no_document_installs_this_project_by_its_name() -> None:
    """Nobody owns the name on PyPI: whoever takes it would run code with root access to every host."""
    root = Path(__file__).parent.parent.parent
    pages = [
        root / "README.md",
        *(root / "docs").glob("*.md"),
        *(p for p in (root / "deploy").rglob("*") if p.is_file()),
    ]
    by_name = re.compile(r"(?:pip|pipx|uv tool|uvx)\s+(?:install|run)[^\n]*\skomodo-upgrade\b(?!/)")
    assert [str(p) for p in pages if by_name.search(p.read_text())] == []


async def test_a_worker_that_cannot_download_lets_a_host_do_it(made: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    async def download(url: str, *_: object, **__: object) -> tuple[Path, str]:
        raise DownloadFailed(f"the worker cannot download {url}")

    monkeypatch.setattr(artifacts, "download", download)
    expected = (await made.survey("web-1")).artifact_sha256
    facts = await replace(made, spec=replace(made.spec, agent=AgentRelease())).survey("web-1")
    assert facts.artifact_sha256 == expected
    assert facts.artifact_source == f"{UNVERIFIED}, recorded from the first download by a host"
    worker_only = replace(made, spec=replace(made.spec, agent=AgentRelease(download=Download.WORKER)))
    assert "no-digest" in [f.code for f in (await worker_only.survey("web-1")).findings]


def test_a_host_without_curl_records_no_digest(tmp_path: Path) -> None:
    """wget follows a redirect that leaves https."""
    (tmp_path / "wget").write_text("#!/bin/sh\necho another binary\n")
    (tmp_path / "wget").chmod(0o755)
    script = Script.load("komodo.sh", "server/url_digest.sh", url="https://mirror.example.net/periphery")
    ran = subprocess.run([SHELL, *words_of(script)], env={"PATH": str(tmp_path)}, capture_output=True, text=True)
    assert ran.returncode == 76
    assert "it has no curl" in ran.stderr
