"""Becoming root, with a stand-in for sudo that behaves like the real one without a terminal."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from hosts.exec.script import Script
from hosts.host import Host
from hosts.ssh.pool import Hosts
from model.errors import SecretMissing, SudoFailed
from model.fleet.spec import SecretRef, Sudo

from .conftest import CHANGE, Ground, Server

PASSWORD = "correct horse 'battery' $staple"
SEARCH = Script(
    "search.sh",
    r"""cat >/dev/null
for file in /proc/[0-9]*/cmdline /proc/[0-9]*/environ; do tr '\0' ' ' <"$file" 2>/dev/null || :; echo; done
ps -eo args; env; set""",
)
Make = Callable[..., Awaitable[tuple[Server, Host]]]


@pytest.fixture
def make(ground: Ground, hosts: Hosts, monkeypatch: pytest.MonkeyPatch) -> Make:
    async def make(mode: str, *, password: str = PASSWORD, sudo: Sudo = Sudo.PASSWORD) -> tuple[Server, Host]:
        server = await ground.server()
        server.tool("sudo", Path(__file__).with_name("sudo.sh").read_text())
        (server.folder / "sudo.mode").write_text(mode)
        (server.folder / "sudo.password").write_text(PASSWORD)
        monkeypatch.setenv("KU_TEST_SUDO", password)
        spec = ground.spec(server, sudo=sudo, sudo_password=SecretRef(env="KU_TEST_SUDO"))
        return server, await hosts.get(spec)

    return make


WHO = Script("who.sh", 'echo "root: ${AS_ROOT:-no} $1"; cat')


@pytest.mark.parametrize("mode", ["nopasswd", "password", "forgets"])
async def test_with_a_password(make: Make, mode: str) -> None:
    server, host = await make(mode)
    data = bytes(range(256)) * 2000
    for _ in range(2):
        done = await host.run(WHO.given("a\nb"), data=data)
        assert done.out == b"root: yes a\nb\n" + data
        assert done.err == ""
    assert (await host.run(WHO.given("c"), root=False)).text == "root: no c\n"
    assert PASSWORD not in " ".join(server.commands)


async def test_without_a_password(make: Make) -> None:
    _, host = await make("nopasswd", sudo=Sudo.PASSWORDLESS)
    assert (await host.run(WHO.given("x"), data=b"y")).text == "root: yes x\ny"
    with pytest.raises(Exception, match="exit code 1"):
        await host.run(Script("t", "exit 1"))


@pytest.mark.parametrize("mode", ["password", "forgets"])
async def test_a_script_that_fails_is_not_run_twice(make: Make, mode: str) -> None:
    server, host = await make(mode)
    count = server.folder / "count"
    with pytest.raises(Exception, match="exit code 1"):
        await host.run(Script("t", 'echo x >>"$1"; exit 1').given(str(count)))
    assert count.read_text() == "x\n"


async def test_a_wrong_password_is_tried_once_by_all(make: Make) -> None:
    server, host = await make("password", password="wrong one")
    results = await asyncio.gather(*(host.run(WHO.given("x")) for _ in range(6)), return_exceptions=True)
    for result in results:
        assert isinstance(result, SudoFailed)
        assert "KU_TEST_SUDO" in str(result)
        assert "wrong one" not in str(result)
        assert not result.transient
    assert (server.folder / "sudo.attempts").read_text() == "attempt\n"


async def test_a_corrected_password_works_at_once(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    _, host = await make("password", password="wrong one")
    with pytest.raises(SudoFailed):
        await host.run(WHO.given("x"))
    monkeypatch.setenv("KU_TEST_SUDO", PASSWORD)
    assert (await host.run(WHO.given("x"))).text == "root: yes x\n"


@pytest.mark.parametrize(
    ("mode", "sudo", "words"),
    [
        ("password", Sudo.PASSWORDLESS, "sudo wants a password"),
        ("tty", Sudo.PASSWORDLESS, "requiretty"),
        ("tty", Sudo.PASSWORD, "requiretty"),
        ("stranger", Sudo.PASSWORDLESS, "no sudo rights"),
        ("stranger", Sudo.PASSWORD, "no sudo rights"),
    ],
)
async def test_refusals_have_a_hint(make: Make, mode: str, sudo: Sudo, words: str) -> None:
    _, host = await make(mode, sudo=sudo)
    with pytest.raises(SudoFailed, match=words) as caught:
        await host.run(WHO.given("x"), data=b"x" * 500_000)
    assert caught.value.hint
    assert "nothing was run" in str(caught.value)


async def test_a_reference_that_does_not_resolve(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    _, host = await make("password")
    monkeypatch.delenv("KU_TEST_SUDO")
    with pytest.raises(SecretMissing, match="KU_TEST_SUDO"):
        await host.run(WHO.given("x"))


@pytest.mark.parametrize("mode", ["password", "forgets"])
async def test_secrets_are_in_no_process_list(make: Make, mode: str) -> None:
    """Neither the password nor the data: of the run itself, nor of what it starts."""
    from datetime import timedelta

    server, host = await make(mode)
    # The worker's own environment holds the reference's value; only the host's processes count.
    search = Script("search.sh", SEARCH.text.replace("/proc/[0-9]*/environ", "/proc/self/environ"))
    argument, data = "argument-7d1f", b"data-55aa\n"
    attached = await host.run(search.given(argument), data=data)
    folder = f"{host.spec.state_dir}/prod/{CHANGE}"
    job = await host.job(
        f"{CHANGE}/web-1/1/search",
        folder,
        search.given(argument),
        data=data,
        change=CHANGE,
        timeout=timedelta(seconds=60),
    )
    for seen in (attached.text, job.text):
        lists, _, _ = seen.partition("AS_ROOT")
        assert "sh -c" in lists
        for secret in (PASSWORD, "correct horse", "data-55aa"):
            assert secret not in seen
        # Arguments are no place for secrets, yet they do not show up either.
        assert argument not in lists
    for file in server.folder.rglob("*"):
        if file.is_file() and file.name != "sudo.password":
            content = file.read_bytes()
            assert PASSWORD.encode() not in content, file
            assert b"data-55aa" not in content, file
