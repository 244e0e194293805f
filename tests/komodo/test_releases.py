"""Versions, addresses, digests, and what is refused as a binary."""

from __future__ import annotations

import json

import pytest

from komodo import releases
from model.errors import ArtifactError, UpgradeError
from model.fleet.spec import AgentRelease

ELF = b"\x7fELF\x02\x01\x01" + bytes(9) + b"\x03\x00"


@pytest.mark.parametrize(
    ("text", "numbers"),
    [("2.3.2", (2, 3, 2)), ("v1.19.5", (1, 19, 5)), ("2", None), ("latest", None), ("2.0.0-dev-90", None), ("", None)],
)
def test_versions(text: str, numbers: tuple[int, int, int] | None) -> None:
    assert releases.version_of(text) == numbers


@pytest.mark.parametrize("target", ["2", "latest", "1.19.5", ""])
def test_targets_that_are_no_exact_v2_are_refused(target: str) -> None:
    with pytest.raises(UpgradeError) as caught:
        releases.check_target(target)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("machine", "arch"),
    [
        ("x86_64", "x86_64"),
        ("amd64", "x86_64"),
        ("arm64", "aarch64"),
        ("aarch64", "aarch64"),
        ("armv7l", ""),
        ("i686", ""),
    ],
)
def test_architectures(machine: str, arch: str) -> None:
    assert releases.arch_of(machine) == arch


def test_addresses_and_the_api_they_belong_to() -> None:
    url = releases.asset_url(AgentRelease().url, "2.3.2", "x86_64")
    assert url == "https://github.com/moghtech/komodo/releases/download/v2.3.2/periphery-x86_64"
    assert releases.release_api(url) == "https://api.github.com/repos/moghtech/komodo/releases/tags/v2.3.2"
    assert releases.release_api("https://mirror.example.net/periphery-x86_64") == ""


def test_the_digest_of_the_right_asset_is_taken() -> None:
    url = releases.asset_url(AgentRelease().url, "2.3.2", "aarch64")
    release: dict[str, object] = {
        "assets": [
            {"name": "periphery-x86_64", "digest": "sha256:" + "a" * 64},
            {"name": "periphery-aarch64", "digest": "sha256:" + "b" * 64},
        ]
    }
    assert releases.published_digest(json.dumps(release).encode(), url) == "b" * 64
    for broken in (
        {},
        {"assets": None},
        {"assets": [{"name": "periphery-aarch64"}]},
        {"assets": [{"name": "periphery-aarch64", "digest": "sha256:x"}]},
    ):
        assert releases.published_digest(json.dumps(broken).encode(), url) == ""
    assert releases.published_digest(b"[" * 100_000, url) == ""


@pytest.mark.parametrize(
    ("head", "size", "says"),
    [
        (b"Not Found", 9, "Not Found"),
        (b"", 0, "0 bytes"),
        (b"<!DOCTYPE html><html>", 4000, "no program"),
        (ELF + b"\xb7\x00", 9_000_000, "aarch64"),
    ],
)
def test_what_is_no_binary_is_refused(head: bytes, size: int, says: str) -> None:
    with pytest.raises(ArtifactError) as caught:
        releases.check_artifact(head, size, arch="x86_64", source="https://x/periphery")
    assert says in str(caught.value)
    assert caught.value.hint


def test_a_binary_for_this_machine_passes() -> None:
    releases.check_artifact(ELF + b"\x3e\x00", 9_000_000, arch="x86_64", source="x")
    releases.check_artifact(ELF + b"\xb7\x00", 9_000_000, arch="aarch64", source="x")
    releases.check_artifact(b"#!/bin/sh\n" + bytes(10), 100, arch="aarch64", source="x")


@pytest.mark.parametrize(
    ("glibc", "openssl3", "refused"),
    [
        ("2.31", True, True),
        ("2.36", True, False),
        ("2.36", False, True),
        ("2.36", None, False),
        ("", None, False),
        ("2.34", True, False),
    ],
)
def test_old_systems_are_foreseen(glibc: str, openssl3: bool | None, refused: bool) -> None:
    assert bool(releases.runs_here(glibc, openssl3)) is refused


def test_what_the_binary_says() -> None:
    assert releases.printed_version("periphery 2.3.2\n") == "2.3.2"
    assert releases.printed_version("./periphery: /lib/libc.so.6: version `GLIBC_2.34' not found") == ""
