"""The same against a real sshd, where there is one."""

from __future__ import annotations

import asyncio
import getpass
import os
import shutil
import socket
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import asyncssh
import pytest

from hosts.exec.script import Script
from hosts.ssh.pool import Hosts
from model.errors import HostKeyUnknown, Unreachable
from model.fleet.spec import HostSpec, Sudo

from .conftest import CHANGE, until
from .test_run import ECHO, TORTURE

SSHD = shutil.which("sshd", path="/usr/sbin:/usr/bin:/usr/local/sbin")
pytestmark = pytest.mark.skipif(SSHD is None, reason="no sshd on this machine (Debian: openssh-server)")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def lay_out(folder: Path, port: int) -> HostSpec:
    host_key = asyncssh.generate_private_key("ssh-ed25519")
    host_key.write_private_key(folder / "host_key")
    (folder / "host_key").chmod(0o600)
    key = asyncssh.generate_private_key("ssh-ed25519")
    key.write_private_key(folder / "id")
    (folder / "id").chmod(0o600)
    key.write_public_key(folder / "authorized_keys")
    public = " ".join(host_key.export_public_key().decode().split()[:2])
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {public}\n")
    (folder / "sshd_config").write_text(
        f"ListenAddress 127.0.0.1:{port}\nHostKey {folder}/host_key\nPidFile none\n"
        f"AuthorizedKeysFile {folder}/authorized_keys\nStrictModes no\nUsePAM no\nPasswordAuthentication no\n"
        "PermitRootLogin prohibit-password\nUseDNS no\n"
    )
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    return HostSpec(
        name="real",
        address="127.0.0.1",
        port=port,
        user=getpass.getuser(),
        key_files=(str(folder / "id"),),
        known_hosts=str(folder / "known_hosts"),
        ssh_config="none",
        sudo=Sudo.NONE,
        state_dir=str(folder / "state"),
    )


async def answers(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True


@pytest.fixture
async def real(tmp_path: Path) -> AsyncIterator[HostSpec]:
    port = free_port()
    spec = lay_out(tmp_path, port)
    assert SSHD is not None
    process = await asyncio.create_subprocess_exec(SSHD, "-D", "-f", str(tmp_path / "sshd_config"))
    try:
        await until(lambda: answers(port))
        yield spec
    finally:
        process.terminate()
        await process.wait()


async def test_runs_jobs_and_sessions(real: HostSpec, hosts: Hosts, tmp_path: Path) -> None:
    host = await hosts.get(real)
    data = bytes(range(256)) * 20_000
    done = await host.run(ECHO.given(*TORTURE), data=data)
    assert done.out == b"".join(arg.encode() + b"\0" for arg in TORTURE) + data
    results = await asyncio.gather(*(host.run(Script("t", "sleep 0.1; echo ok")) for _ in range(20)))
    assert {result.text for result in results} == {"ok\n"}
    async with host.forward("127.0.0.1", real.port) as socket:
        reader, writer = await asyncio.open_unix_connection(socket)
        assert (await reader.readline()).startswith(b"SSH-2.0-OpenSSH")
        writer.close()


async def test_a_job_outlives_its_connection(real: HostSpec, tmp_path: Path) -> None:
    count, go = tmp_path / "count", tmp_path / "go"
    script = Script("slow.sh", 'echo run >>"$1"; while [ ! -e "$2" ]; do sleep 0.05; done; cat')
    folder = f"{real.state_dir}/prod/{CHANGE}"

    async def start(hosts: Hosts) -> str:
        host = await hosts.get(real)
        options = {"data": b"data", "change": CHANGE, "timeout": timedelta(seconds=30)}
        done = await host.job(f"{CHANGE}/x/1/step", folder, script.given(str(count), str(go)), **options)  # type: ignore[arg-type]
        return done.text

    first = Hosts()
    running = asyncio.create_task(start(first))
    await until(count.exists)
    await first.close()
    with pytest.raises(Unreachable):
        await running
    async with Hosts() as second:
        attached = asyncio.create_task(start(second))
        await asyncio.sleep(0.2)
        go.touch()
        assert await attached == "data"
    assert count.read_text() == "run\n"


async def test_its_host_key_is_checked(real: HostSpec, hosts: Hosts) -> None:
    Path(real.known_hosts).write_text("")  # noqa: ASYNC240
    with pytest.raises(HostKeyUnknown, match="SHA256:"):
        await hosts.get(real)
