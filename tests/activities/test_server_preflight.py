"""Surveys of servers and the staging of their binaries, over real SSH against the sandbox."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import pytest

from activities.server import stage
from model.errors import ArtifactError, DiskFull, DownloadFailed
from model.facts import Severity
from model.fleet.spec import Download
from tests.activities.server_fleet import OLD, Fleet, codes


async def test_a_full_disk_is_found_before_staging_and_reported_by_it(fleet: Fleet) -> None:
    step = await fleet.step("web-1")
    fleet.sandbox.fault("disk-full", "web-1", path="var/lib")
    assert "no-space" in codes(await fleet.survey("web-1"), Severity.REFUSE)
    with pytest.raises(DiskFull):
        await fleet.stage(step)


async def _no_way_out(url: str, *_args: object, **_named: object) -> NoReturn:
    raise DownloadFailed(f"the worker cannot download {url}: ConnectError", hint="is the worker behind a proxy?")


@pytest.mark.parametrize("fault", ["download-403", "download-wrong-file"])
async def test_a_host_that_cannot_download_gets_the_binary_from_the_worker_or_reports_why(
    fleet: Fleet, fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    step = await fleet.step("web-1")
    fleet.sandbox.fault(fault, "web-1")
    if fault == "download-403":
        by_host = replace(step, op=replace(step.op, attempt=2), agent=replace(step.agent, download=Download.HOST))
        with pytest.raises(DownloadFailed):
            await fleet.stage(by_host)
        neither = replace(step, op=replace(step.op, attempt=3))
        with monkeypatch.context() as without:
            without.setattr(stage, "download", _no_way_out)
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
        assert "not a program" in str(caught.value)


async def test_a_system_that_is_too_old_is_reported_before_anything_is_stopped(fleet: Fleet) -> None:
    step = await fleet.step("web-1")
    fleet.sandbox.fault("old-libc", "web-1")
    with pytest.raises(ArtifactError) as caught:
        await fleet.stage(step)
    assert "GLIBC_2.34" in str(caught.value)
    assert "leave_behind" in caught.value.hint
    assert fleet.sandbox.agent_version("web-1") == OLD


async def test_another_digest_than_expected_is_refused(fleet: Fleet) -> None:
    step = await fleet.step("web-1")
    with pytest.raises(ArtifactError) as caught:
        await fleet.stage(replace(step, facts=replace(step.facts, artifact_sha256="0" * 64)))
    assert "expected " + "0" * 64 in str(caught.value)


async def test_nothing_changed_is_no_drift(mixed: Fleet) -> None:
    step = await mixed.ready("db-1")
    assert not (await mixed.recheck(step)).drift


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ('passkeys = ["a"]\nport = 8120\npasskeys = ["b"]\n', "duplicate-key"),
        ("passkeys = changeme\n", "config-broken"),
        ('passkeys = ["a"]\ncore_address = "https://k.example"\n', "outbound-unused"),
        ('passkeys = ["a"]\ndisable_container_exec = true\ndisable_container_terminals = true\n', "alias-pair"),
        ('passkeys = ["a"]\n[logging]\nlevel = "error"\n', "logs-too-little"),
    ],
)
async def test_every_refusal_of_the_preflight_has_a_hint(fleet: Fleet, text: str, code: str) -> None:
    fleet.config("web-1").write_text(text)
    facts = await fleet.survey("web-1")
    assert code in codes(facts, Severity.REFUSE)
    assert all(f.hint for f in facts.findings if f.severity is Severity.REFUSE)
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
async def test_a_host_that_cannot_be_surveyed_is_a_finding(mixed: Fleet, fault: str, code: str) -> None:
    name = "db-1" if fault == "sudo-wrong" else "web-1"
    mixed.sandbox.fault(fault, name)
    await mixed.sandbox.settled()
    facts = await mixed.survey(name)
    assert not facts.reachable
    assert codes(facts, Severity.REFUSE) == {code}
    assert facts.findings[0].hint
