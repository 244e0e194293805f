"""Looking at servers and staging their binaries, over real SSH against the sandbox."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import pytest

from activities import artifacts
from activities.preflight_server import PreflightServer
from model.errors import (
    ArtifactError,
    DiskFull,
    DownloadFailed,
)
from model.facts import Severity
from tests.activities.server_fleet import OLD, Fleet, codes, fleet_of, run


@pytest.fixture
async def fleet(tmp_path: Path) -> AsyncIterator[Fleet]:
    """Core is on v2 already, the one agent still on v1."""
    async with fleet_of(tmp_path) as made:
        yield made


@pytest.fixture
async def mixed(tmp_path: Path) -> AsyncIterator[Fleet]:
    """As `fleet`, with four agents of different kinds."""
    async with fleet_of(tmp_path, servers=4) as made:
        yield made


async def test_a_full_disk_is_foreseen_and_staging_says_so(fleet: Fleet) -> None:
    step = await fleet.step("web-1")
    fleet.sandbox.fault("disk-full", "web-1", path="var/lib")
    assert "no-space" in codes(await fleet.survey("web-1"), Severity.REFUSE)
    with pytest.raises(DiskFull):
        await fleet.stage(step)


async def _no_way_out(url: str, *_args: object, **_named: object) -> NoReturn:
    raise DownloadFailed(f"the worker cannot download {url}: ConnectError", cure="is the worker behind a proxy?")


@pytest.mark.parametrize("fault", ["download-403", "download-wrong-file"])
async def test_a_host_that_cannot_download_gets_it_from_the_worker_or_says_why(
    fleet: Fleet, fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    step = await fleet.step("web-1")
    fleet.sandbox.fault(fault, "web-1")
    if fault == "download-403":
        by_host = replace(step, op=replace(step.op, attempt=2), agent=replace(step.agent, download="host"))
        with pytest.raises(DownloadFailed):
            await fleet.stage(by_host)
        neither = replace(step, op=replace(step.op, attempt=3))
        with monkeypatch.context() as without:
            without.setattr(artifacts, "download", _no_way_out)
            with pytest.raises(DownloadFailed) as both:
                await fleet.stage(neither)
        assert "403" in str(both.value), "the host's own reason is not lost"
        assert "neither could the worker: the worker cannot download" in str(both.value)
        assert both.value.host == "web-1"
        staged = await fleet.stage(step)
        assert "pushed" in staged.source
        assert list((tmp_path / "cache/komodo-upgrade/artifacts").iterdir())
    else:
        with pytest.raises(ArtifactError) as caught:
            await fleet.stage(step)
        assert "no program" in str(caught.value)


async def test_a_system_that_is_too_old_is_told_before_anything_stops(fleet: Fleet) -> None:
    step = await fleet.step("web-1")
    fleet.sandbox.fault("old-libc", "web-1")
    with pytest.raises(ArtifactError) as caught:
        await fleet.stage(step)
    assert "GLIBC_2.34" in str(caught.value)
    assert "leave_behind" in caught.value.cure
    assert fleet.sandbox.agent_version("web-1") == OLD


async def test_another_digest_than_expected_is_refused(fleet: Fleet) -> None:
    step = await fleet.step("web-1")
    agent = replace(step.agent, sha256={step.facts.arch: "0" * 64})
    with pytest.raises(ArtifactError) as caught:
        await fleet.stage(replace(step, agent=agent))
    assert "expected " + "0" * 64 in str(caught.value)


async def test_nothing_changed_is_no_drift(mixed: Fleet) -> None:
    step = await mixed.ready("db-1")
    assert not (await run(PreflightServer(mixed.hosts).recheck_server, step)).drift


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ('passkeys = ["a"]\nport = 8120\npasskeys = ["b"]\n', "duplicate-key"),
        ("passkeys = changeme\n", "config-broken"),
        ('passkeys = ["a"]\ncore_address = "https://k.example"\n', "outbound"),
        ('passkeys = ["a"]\ndisable_container_exec = true\ndisable_container_terminals = true\n', "alias-pair"),
        ('passkeys = ["a"]\n[logging]\nlevel = "error"\n', "logs-too-little"),
    ],
)
async def test_preflight_refuses_with_a_way_out(fleet: Fleet, text: str, code: str) -> None:
    fleet.config("web-1").write_text(text)
    facts = await fleet.survey("web-1")
    assert code in codes(facts, Severity.REFUSE)
    assert all(f.cure for f in facts.findings if f.severity is Severity.REFUSE)
    if code == "duplicate-key":
        assert any("lines 1 and 3" in f.text for f in facts.findings)


async def test_preflight_finds_what_is_missing(mixed: Fleet) -> None:
    assert "no-agent" in codes(await mixed.survey("web-1", unit="nothing.service"), Severity.REFUSE)
    mixed.config("nas").unlink()
    assert "config-missing" in codes(await mixed.survey("nas"), Severity.REFUSE)
    service = mixed.sandbox.hosts["build-1"].systemd.find("periphery.service")
    assert service is not None
    await mixed.sandbox.hosts["build-1"].systemd.stop(service)
    assert "agent-not-running" in codes(await mixed.survey("build-1"), Severity.REFUSE)


@pytest.mark.parametrize(
    ("fault", "code"),
    [("unreachable", "unreachable"), ("host-key-changed", "host-key-changed"), ("sudo-wrong", "sudo-failed")],
)
async def test_a_host_that_cannot_be_looked_at_is_a_finding(mixed: Fleet, fault: str, code: str) -> None:
    name = "db-1" if fault == "sudo-wrong" else "web-1"
    mixed.sandbox.fault(fault, name)
    await mixed.sandbox.settled()
    facts = await mixed.survey(name)
    assert not facts.reachable
    assert codes(facts, Severity.REFUSE) == {code}
    assert facts.findings[0].cure
