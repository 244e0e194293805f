"""Jump hosts, and forwards into a host's own network."""

from __future__ import annotations

import asyncio

import pytest

from hosts.exec.script import Script
from hosts.ssh.pool import Hosts
from model.errors import HostError, HostKeyUnknown, Unreachable

from .conftest import Ground, Machine
from .test_connection import works

OK = Script("t", "echo ok")


# --- jump hosts -------------------------------------------------------------------------------------------------------


async def test_one_connection_per_jump_host(ground: Ground, hosts: Hosts) -> None:
    jump = await ground.server("jump")
    servers = [await ground.server(f"web-{n}") for n in range(4)]
    specs = [ground.spec(server, jump=f"127.0.0.1:{jump.port}") for server in servers]
    await asyncio.gather(*(works(hosts, spec) for spec in specs))
    assert jump.logins == 1
    assert sorted(jump.forwarded) == sorted(("127.0.0.1", server.port) for server in servers)
    assert [server.logins for server in servers] == [1, 1, 1, 1]


async def test_a_jump_hosts_key_is_checked_too(ground: Ground, hosts: Hosts) -> None:
    jump = await ground.server("jump", known=False)
    server = await ground.server()
    with pytest.raises(HostKeyUnknown, match="jump host") as caught:
        await hosts.get(ground.spec(server, jump=f"ops@127.0.0.1:{jump.port}"))
    assert caught.value.fingerprint == jump.key.get_fingerprint()
    assert jump.logins == server.logins == 0


async def test_an_unknown_host_behind_a_jump_host(ground: Ground, hosts: Hosts) -> None:
    jump = await ground.server("jump")
    server = await ground.server(known=False)
    with pytest.raises(HostKeyUnknown) as caught:
        await hosts.get(ground.spec(server, jump=f"127.0.0.1:{jump.port}"))
    assert f"-J 127.0.0.1:{jump.port}" in caught.value.hint
    assert "ssh-keyscan" not in caught.value.hint


async def test_two_hops_by_the_ssh_config(ground: Ground, hosts: Hosts) -> None:
    first, second, server = [await ground.server(name) for name in ("first", "second", "web-1")]
    config = ground.folder / "config"
    config.write_text(
        f"Host first\n  Port {first.port}\n  User ops\nHost second\n  Port {second.port}\n  ProxyJump first\n"
        f"Host web\n  Port {server.port}\n  ProxyJump second\n"
        f"Host *\n  HostName 127.0.0.1\n  IdentityFile {ground.folder}/id\n  ProxyJump second\n"
    )
    await works(hosts, ground.spec(server, address="web", port=0, ssh_config=str(config)))
    assert (first.logins, second.logins, server.logins) == (1, 1, 1)


async def test_nothing_behind_the_jump_host(ground: Ground, hosts: Hosts) -> None:
    jump = await ground.server("jump")
    server = await ground.server()
    await server.stop()
    with pytest.raises(Unreachable, match="jump host could not"):
        await hosts.get(ground.spec(server, jump=f"127.0.0.1:{jump.port}"))


# --- forwards ---------------------------------------------------------------------------------------------------------


async def test_forward(machine: Machine) -> None:
    async def shout(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write((await reader.readline()).upper())
        writer.close()

    echo = await asyncio.start_server(shout, "127.0.0.1", 0)
    port = echo.sockets[0].getsockname()[1]
    async with machine.host.forward("127.0.0.1", port) as socket:
        for _ in range(2):
            reader, writer = await asyncio.open_unix_connection(socket)
            writer.write(b"hello\n")
            assert await reader.read() == b"HELLO\n"
            writer.close()
    assert not socket.parent.exists()
    echo.close()
    assert machine.server.logins == 1


async def test_a_forward_outlives_its_connection(machine: Machine) -> None:
    """A stream ends with the connection; the next client opens a new connection through the same socket."""

    async def shout(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            writer.write(line.upper())
        writer.close()

    echo = await asyncio.start_server(shout, "127.0.0.1", 0)
    async with machine.host.forward("127.0.0.1", echo.sockets[0].getsockname()[1]) as socket:
        reader, writer = await asyncio.open_unix_connection(socket)
        writer.write(b"hello\n")
        assert await reader.readline() == b"HELLO\n"
        machine.server.cut()
        assert await reader.read() == b""
        writer.close()
        reader, writer = await asyncio.open_unix_connection(socket)
        writer.write(b"again\n")
        assert await reader.readline() == b"AGAIN\n"
        writer.close()
    echo.close()
    assert machine.server.logins == 2


async def test_a_forward_that_is_forbidden(ground: Ground, hosts: Hosts) -> None:
    server = await ground.server(forwarding=False)
    host = await hosts.get(ground.spec(server))
    with pytest.raises(HostError, match="AllowTcpForwarding"):
        async with host.forward("127.0.0.1", 1):
            pass


async def test_a_forward_to_what_does_not_listen_yet(machine: Machine, unused: int) -> None:
    async with machine.host.forward("127.0.0.1", unused) as socket:
        reader, writer = await asyncio.open_unix_connection(socket)
        assert await reader.read() == b""
        writer.close()
    assert (await machine.host.run(OK)).text == "ok\n"


@pytest.fixture
async def unused() -> int:
    server = await asyncio.start_server(lambda _r, _w: None, "127.0.0.1", 0)
    port: int = server.sockets[0].getsockname()[1]
    server.close()
    return port
