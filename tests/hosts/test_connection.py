"""Reaching a host: keys, host keys, ssh config, jump hosts, and one connection for all."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import os
from datetime import timedelta
from importlib.util import find_spec

import asyncssh
import pytest

from hosts.exec.script import Script
from hosts.ssh.connection import SESSIONS
from hosts.ssh.pool import HANDSHAKES, Hosts
from model.errors import AuthenticationFailed, HostKeyChanged, HostKeyUnknown, SecretMissing, Unreachable
from model.fleet.spec import HostSpec, SecretRef

from .conftest import Ground, Machine, Server, until

OK = Script("t", "echo ok")


async def works(hosts: Hosts, spec: HostSpec) -> None:
    assert (await (await hosts.get(spec)).run(OK)).text == "ok\n"


# --- host keys --------------------------------------------------------------------------------------------------------


async def test_an_unknown_host_key(ground: Ground, hosts: Hosts) -> None:
    server = await ground.server(known=False)
    with pytest.raises(HostKeyUnknown) as caught:
        await hosts.get(ground.spec(server))
    error = caught.value
    assert type(error) is HostKeyUnknown
    assert error.fingerprint == server.key.get_fingerprint()
    assert error.fingerprint.startswith("SHA256:")
    text = str(error)
    assert error.fingerprint in text
    assert str(ground.known_hosts) in text
    assert "ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub" in error.hint
    assert f"-p {server.port} ops@127.0.0.1" in error.hint
    assert f"ssh-keyscan -p {server.port} -t ed25519 127.0.0.1 >> {ground.known_hosts}" in error.hint
    assert not error.transient
    assert server.commands == []
    assert server.logins == 0


async def test_a_changed_host_key(ground: Ground, hosts: Hosts) -> None:
    server = await ground.server(known=False)
    other = asyncssh.generate_private_key("ssh-ed25519")
    ground.record(server, other)
    with pytest.raises(HostKeyChanged) as caught:
        await hosts.get(ground.spec(server))
    text = str(caught.value)
    assert other.get_fingerprint() in text
    assert server.key.get_fingerprint() in text
    assert f"ssh-keygen -R '[127.0.0.1]:{server.port}' -f {ground.known_hosts}" in text
    assert server.logins == 0


async def test_a_host_that_shows_another_kind_of_key(ground: Ground, hosts: Hosts) -> None:
    """RSA is on record, the host has only ed25519 now: it is not "no algorithm in common"."""
    server = await ground.server(known=False)
    ground.record(server, asyncssh.generate_private_key("ssh-rsa", key_size=2048))
    with pytest.raises(HostKeyChanged) as caught:
        await hosts.get(ground.spec(server))
    assert caught.value.fingerprint == server.key.get_fingerprint()


@pytest.mark.parametrize("known", ["ssh-rsa", "ssh-ed25519", "ecdsa-sha2-nistp256"])
async def test_the_kind_on_record_is_asked_for(ground: Ground, hosts: Hosts, known: str) -> None:
    keys = {
        "ssh-ed25519": asyncssh.generate_private_key("ssh-ed25519"),
        "ecdsa-sha2-nistp256": asyncssh.generate_private_key("ecdsa-sha2-nistp256"),
        "ssh-rsa": asyncssh.generate_private_key("ssh-rsa", key_size=2048),
    }
    server = await ground.server(known=False, host_keys=list(keys.values()))
    ground.record(server, keys[known])
    await works(hosts, ground.spec(server))


def hashed(name: str) -> str:
    salt = os.urandom(20)
    digest = hmac.new(salt, name.encode(), hashlib.sha1).digest()
    return f"|1|{base64.b64encode(salt).decode()}|{base64.b64encode(digest).decode()}"


def public(server: Server) -> str:
    return " ".join(server.key.export_public_key().decode().split()[:2])


async def test_hashed_entries_and_unreadable_lines(ground: Ground, hosts: Hosts) -> None:
    server = await ground.server(known=False)
    ground.known_hosts.write_text(
        f"# comment\nhalf-a-line\n@strange x y z\n{hashed(f'[127.0.0.1]:{server.port}')} {public(server)}\n"
    )
    await works(hosts, ground.spec(server))


async def test_a_key_on_record_without_the_port(ground: Ground, hosts: Hosts) -> None:
    server = await ground.server(known=False)
    ground.known_hosts.write_text(f"127.0.0.1 {public(server)}\n")
    await works(hosts, ground.spec(server))


async def test_a_name_is_not_trusted_for_its_address(ground: Ground, hosts: Hosts) -> None:
    server = await ground.server()
    with pytest.raises(HostKeyUnknown):
        await hosts.get(ground.spec(server, address="localhost"))


async def test_a_revoked_key(ground: Ground, hosts: Hosts) -> None:
    server = await ground.server()
    with ground.known_hosts.open("a") as file:
        file.write(f"@revoked * {public(server)}\n")
    with pytest.raises(HostKeyChanged, match="revoked"):
        await hosts.get(ground.spec(server))


async def test_the_check_cannot_be_switched_off(ground: Ground, hosts: Hosts, monkeypatch: pytest.MonkeyPatch) -> None:
    server = await ground.server(known=False)
    monkeypatch.setenv("HOME", str(ground.folder))
    for line in ("UserKnownHostsFile none", "UserKnownHostsFile /dev/null", "StrictHostKeyChecking no"):
        config = ground.folder / "config"
        config.write_text(f"Host *\n  {line}\n  CheckHostIP no\n")
        with pytest.raises(HostKeyUnknown):
            await hosts.get(ground.spec(server, known_hosts="", ssh_config=str(config), name=line))
    assert server.logins == 0


async def test_no_known_hosts_file_at_all(ground: Ground, hosts: Hosts) -> None:
    server = await ground.server()
    with pytest.raises(HostKeyUnknown, match="not-there"):
        await hosts.get(ground.spec(server, known_hosts=str(ground.folder / "not-there")))


async def test_a_key_recorded_later_is_seen(ground: Ground, hosts: Hosts) -> None:
    server = await ground.server(known=False)
    with pytest.raises(HostKeyUnknown):
        await hosts.get(ground.spec(server))
    ground.record(server)
    await works(hosts, ground.spec(server))


# --- getting there ----------------------------------------------------------------------------------------------------


async def test_nobody_listens(ground: Ground, hosts: Hosts) -> None:
    server = await ground.server()
    await server.stop()
    with pytest.raises(Unreachable, match="refused") as caught:
        await hosts.get(ground.spec(server))
    assert caught.value.transient
    assert "ssh " in caught.value.hint


async def test_a_name_that_does_not_resolve(ground: Ground, hosts: Hosts) -> None:
    server = await ground.server()
    with pytest.raises(Unreachable, match="does not resolve"):
        await hosts.get(ground.spec(server, address="no-such-host.invalid"))


async def test_a_host_that_accepts_and_sends_nothing(ground: Ground, hosts: Hosts) -> None:
    async def unresponsive(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    no_answer = await asyncio.start_server(unresponsive, "127.0.0.1", 0)
    server = await ground.server()
    spec = ground.spec(server, port=no_answer.sockets[0].getsockname()[1], connect_timeout=timedelta(seconds=0.5))
    with pytest.raises(Unreachable, match=r"within 0\.5 s"):
        await hosts.get(spec)
    no_answer.close()


async def test_a_key_that_is_not_accepted(ground: Ground, hosts: Hosts) -> None:
    server = await ground.server()
    other = ground.folder / "other"
    asyncssh.generate_private_key("ssh-ed25519").write_private_key(other)
    with pytest.raises(AuthenticationFailed, match="none of our keys") as caught:
        await hosts.get(ground.spec(server, key_files=(str(other),)))
    assert not caught.value.transient


async def test_key_files_that_cannot_be_used(ground: Ground, hosts: Hosts) -> None:
    server = await ground.server()
    (ground.folder / "rubbish").write_text("rubbish")
    for name, words in (("nowhere", "no such file"), ("rubbish", "rubbish cannot be used")):
        with pytest.raises(AuthenticationFailed, match=words):
            await hosts.get(ground.spec(server, key_files=(str(ground.folder / name),)))


async def test_an_encrypted_key(ground: Ground, hosts: Hosts, monkeypatch: pytest.MonkeyPatch) -> None:
    server = await ground.server()
    path = ground.folder / "encrypted"
    # OpenSSH's own format needs the package bcrypt to be read.
    ground.key.write_private_key(path, "pkcs8-pem", "open sesame")
    ref = SecretRef(env="KU_TEST_PASSPHRASE")
    spec = ground.spec(server, key_files=(str(path),), passphrase=ref)
    with pytest.raises(SecretMissing, match="KU_TEST_PASSPHRASE"):
        await hosts.get(spec)
    monkeypatch.setenv("KU_TEST_PASSPHRASE", "wrong one")
    with pytest.raises(AuthenticationFailed) as caught:
        await hosts.get(spec)
    assert "KU_TEST_PASSPHRASE" in str(caught.value)
    assert "wrong one" not in str(caught.value)
    monkeypatch.setenv("KU_TEST_PASSPHRASE", "open sesame")
    await works(hosts, spec)
    with pytest.raises(AuthenticationFailed, match="encrypted"):
        await hosts.get(ground.spec(server, key_files=(str(path),)))


async def test_an_encrypted_key_in_openssh_s_own_format(
    ground: Ground, hosts: Hosts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The format of ssh-keygen. Reading it needs the package bcrypt; without it, the message names the package."""
    path = ground.folder / "encrypted"
    making = await asyncio.create_subprocess_exec(
        "ssh-keygen", "-q", "-t", "ed25519", "-N", "open sesame", "-f", str(path)
    )
    assert await making.wait() == 0
    path.with_name("encrypted.pub").rename(ground.folder / "elsewhere.pub")
    ground.key = asyncssh.read_public_key(ground.folder / "elsewhere.pub")
    server = await ground.server()
    monkeypatch.setenv("KU_TEST_PASSPHRASE", "open sesame")
    spec = ground.spec(server, key_files=(str(path),), passphrase=SecretRef(env="KU_TEST_PASSPHRASE"))
    if find_spec("bcrypt"):
        await works(hosts, spec)
    else:
        with pytest.raises(AuthenticationFailed, match="bcrypt is missing"):
            await hosts.get(spec)


async def test_a_key_in_an_agent(ground: Ground, hosts: Hosts, monkeypatch: pytest.MonkeyPatch) -> None:
    """Encrypted on disk, open in the agent: its public half selects the key."""
    server = await ground.server()
    agent = await asyncio.create_subprocess_exec(
        "ssh-agent", "-D", "-a", str(ground.folder / "agent"), stdout=asyncio.subprocess.DEVNULL
    )
    try:
        await until((ground.folder / "agent").exists)
        monkeypatch.setenv("SSH_AUTH_SOCK", str(ground.folder / "agent"))
        async with asyncssh.connect_agent() as client:
            await client.add_keys([asyncssh.generate_private_key("ssh-ed25519"), ground.key])
        ground.key.write_private_key(ground.folder / "locked", "pkcs8-pem", "open sesame")
        ground.key.write_public_key(ground.folder / "locked.pub")
        await works(hosts, ground.spec(server, key_files=(str(ground.folder / "locked"),)))
        monkeypatch.setenv("HOME", str(ground.folder))
        await works(hosts, ground.spec(server, key_files=()))
    finally:
        agent.terminate()
        await agent.wait()


async def test_the_ssh_config_is_honoured(ground: Ground, hosts: Hosts, monkeypatch: pytest.MonkeyPatch) -> None:
    server = await ground.server(known=False)
    monkeypatch.setenv("HOME", str(ground.folder))
    (ground.folder / ".ssh").mkdir()
    (ground.folder / ".ssh" / "mine").write_text(f"the-alias {public(server)}\n")
    (ground.folder / ".ssh" / "config").write_text(
        f"Host web\n  HostName 127.0.0.1\n  Port {server.port}\n  User ops\n  IdentityFile {ground.folder}/id\n"
        f"  HostKeyAlias the-alias\n  UserKnownHostsFile %d/.ssh/mine\n  RequestTTY force\n  RemoteCommand false\n"
        f"  ForwardAgent yes\n"
    )
    plain = {"port": 0, "user": "", "key_files": (), "known_hosts": "", "ssh_config": ""}
    await works(hosts, ground.spec(server, address="web", **plain))


async def test_a_broken_ssh_config(ground: Ground, hosts: Hosts) -> None:
    server = await ground.server()
    config = ground.folder / "config"
    config.write_text("Host *\n  Port many\n")
    with pytest.raises(AuthenticationFailed, match=r"config line 2"):
        await hosts.get(ground.spec(server, ssh_config=str(config)))


# --- one connection ---------------------------------------------------------------------------------------------------


async def test_one_handshake_for_all_who_ask(ground: Ground, hosts: Hosts) -> None:
    server = await ground.server()
    await asyncio.gather(*(works(hosts, ground.spec(server)) for _ in range(12)))
    assert server.logins == 1


async def test_one_who_gives_up_does_not_take_it_from_the_others(ground: Ground, hosts: Hosts) -> None:
    server = await ground.server()
    first = asyncio.create_task(hosts.get(ground.spec(server)))
    second = asyncio.create_task(hosts.get(ground.spec(server)))
    await asyncio.sleep(0)
    first.cancel()
    assert (await (await second).run(OK)).text == "ok\n"
    assert server.logins == 1


async def test_at_most_so_many_sessions(machine: Machine) -> None:
    script = Script("t", "sleep 0.2; echo ok")
    results = await asyncio.gather(*(machine.host.run(script) for _ in range(3 * SESSIONS)))
    assert {result.text for result in results} == {"ok\n"}
    assert machine.server.most_sessions == SESSIONS


async def test_a_server_with_fewer_sessions_than_we_want(ground: Ground, hosts: Hosts) -> None:
    server = await ground.server(max_sessions=2)
    host = await hosts.get(ground.spec(server))
    results = await asyncio.gather(*(host.run(Script("t", "sleep 0.2; echo ok")) for _ in range(6)))
    assert {result.text for result in results} == {"ok\n"}
    assert server.logins == 1


async def test_at_most_so_many_handshakes(ground: Ground, hosts: Hosts, monkeypatch: pytest.MonkeyPatch) -> None:
    running = most = 0
    real = asyncssh.connect

    async def counted(*args: object, **options: object) -> object:
        nonlocal running, most
        running += 1
        most = max(most, running)
        try:
            return await real(*args, **options)
        finally:
            running -= 1

    monkeypatch.setattr(asyncssh, "connect", counted)
    server = await ground.server()
    await asyncio.gather(*(hosts.get(ground.spec(server, name=f"web-{n}")) for n in range(2 * HANDSHAKES)))
    assert most == HANDSHAKES
    assert server.logins == 2 * HANDSHAKES


async def test_it_is_opened_again_when_it_broke(machine: Machine, hosts: Hosts) -> None:
    await works(hosts, machine.spec)
    machine.server.cut()
    await works(hosts, machine.spec)
    assert machine.server.logins == 2
    host = machine.host
    machine.server.cut()
    results = await asyncio.gather(*(host.run(OK) for _ in range(6)))
    assert {result.text for result in results} == {"ok\n"}
    assert machine.server.logins == 3


async def test_a_server_that_restarts(machine: Machine, ground: Ground) -> None:
    await machine.server.stop()
    with pytest.raises(Unreachable):
        await machine.host.run(OK)
    await machine.server.start(ground.key)
    assert (await machine.host.run(OK)).text == "ok\n"


async def test_a_link_that_breaks_while_a_script_runs(machine: Machine) -> None:
    running = asyncio.create_task(machine.host.run(Script("slow.sh", "sleep 30")))
    await until(lambda: machine.server.sessions)
    machine.server.cut()
    with pytest.raises(Unreachable, match=r"lost while slow\.sh ran"):
        await running


def test_paths_in_messages_are_quoted() -> None:
    from hosts.errors import ssh_line

    spec = HostSpec(name="x", address="h", user="u", key_files=("/a b/k",), known_hosts="/k h", jump="")
    assert ssh_line(spec, "h", 22) == "ssh -o 'UserKnownHostsFile=/k h' -i '/a b/k' u@h"
