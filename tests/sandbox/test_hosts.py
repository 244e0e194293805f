"""SSH, sudo, systemd, journal and downloads, driven by a plain SSH client."""

from __future__ import annotations

import asyncio
import hashlib
import platform
import re
import subprocess
import sys
import time
from pathlib import Path

import asyncssh
import pytest

from sandbox import faults
from sandbox.fleet import Sandbox
from sandbox.releases import binary
from tests.sandbox.conftest import Run, connect, until

ARCH = platform.machine()


async def test_commands_are_real_and_stdin_reaches_them(fleet: Sandbox, run: Run) -> None:
    done = await run("web-1", 'cat > note; wc -c < note; cat "$HOME/note"; exit 3', "hello\n")
    assert (done.exit_status, done.stdout) == (3, "6\nhello\n")
    assert (fleet.hosts["web-1"].root / "home/ops/note").read_text() == "hello\n"


async def test_a_background_job_outlives_its_session(fleet: Sandbox, run: Run) -> None:
    root = fleet.hosts["web-1"].root
    done = await run("web-1", "setsid sh -c 'sleep 0.3; echo late > \"$HOME/late\"' </dev/null >/dev/null 2>&1 &")
    assert done.exit_status == 0
    fleet.kill_connections("web-1")
    await until((root / "home/ops/late").is_file)


async def test_a_connection_drops_when_a_command_runs(fleet: Sandbox) -> None:
    seen: list[tuple[str, ...]] = []
    fleet.world.watchers.append(lambda _host, argv: seen.append(argv))
    fleet.fault("connection-drop", "web-1", on="systemctl stop", times=1)
    connection = await connect(fleet, "web-1")
    assert (await connection.run("systemctl is-active periphery")).exit_status == 0
    cut = await connection.run("sudo -n systemctl stop periphery; touch ~/after")
    assert cut.exit_status is None
    await until((fleet.hosts["web-1"].root / "home/ops/after").exists)
    assert fleet.agent_version("web-1") == ""
    assert ("systemctl", "stop", "periphery") in seen


async def test_reboot(fleet: Sandbox, run: Run) -> None:
    before = await run("web-1", "systemctl show -p UserspaceTimestamp")
    job = await run("web-1", "setsid sh -c 'sleep 1; touch ~/late' </dev/null >/dev/null 2>&1 & echo $!")
    await fleet.reboot("web-1")
    await fleet.reboot("core")
    async with await connect(fleet, "web-1") as connection:
        after = await connection.run("systemctl show -p UserspaceTimestamp; systemctl is-active periphery")
        assert str(before.stdout) not in str(after.stdout)
        assert str(after.stdout).endswith("active\n")
    assert await asyncio.to_thread(_ended, int(str(job.stdout)))
    await until(lambda: fleet.core is not None and fleet.core.listening)


async def test_wrong_client_key_and_changed_host_key(fleet: Sandbox) -> None:
    host = fleet.hosts["web-1"]
    stranger = asyncssh.generate_private_key("ssh-ed25519")
    with pytest.raises(asyncssh.PermissionDenied):
        await asyncssh.connect(
            host.address, host.port, username="ops", client_keys=[stranger], config=None,
            known_hosts=str(fleet.folder / "known_hosts"),
        )  # fmt: skip
    fleet.fault("host-key-changed", "web-1")
    await fleet.settled()
    with pytest.raises(asyncssh.HostKeyNotVerifiable):
        await connect(fleet, "web-1")


async def test_no_more_than_ten_sessions(fleet: Sandbox) -> None:
    async with await connect(fleet, "web-1") as connection:
        held = [await connection.create_process("sleep 5") for _ in range(10)]
        with pytest.raises(asyncssh.ChannelOpenError):
            await connection.run("true")
        held[0].close()
        await held[0].wait_closed()
        assert (await connection.run("echo again")).stdout == "again\n"


async def test_unreachable_and_back(fleet: Sandbox, run: Run) -> None:
    await run("web-1", "true")
    fleet.fault("unreachable", "web-1")
    await fleet.settled()
    with pytest.raises(OSError):
        await connect(fleet, "web-1")
    fleet.heal("unreachable")
    await fleet.settled()
    async with await connect(fleet, "web-1") as connection:
        assert (await connection.run("true")).exit_status == 0


async def test_a_connection_drops_and_what_it_started_lives_on(fleet: Sandbox) -> None:
    fleet.fault("connection-drop", "web-1", at=2, times=1)
    connection = await connect(fleet, "web-1")
    assert (await connection.run("true")).exit_status == 0
    cut = await connection.run('sleep 0.3; echo lived > "$HOME/lived"')
    assert (cut.exit_status, connection.is_closed()) == (None, True)
    await until((fleet.hosts["web-1"].root / "home/ops/lived").is_file)
    async with await connect(fleet, "web-1") as again:
        assert (await again.run("true")).exit_status == 0


async def test_sudo_with_password(fleet: Sandbox, run: Run) -> None:
    password = fleet.own_secrets.sudo_password
    refused = await run("db-1", "sudo -n true")
    assert (refused.exit_status, refused.stderr) == (1, "sudo: a password is required\n")
    blind = await run("db-1", "sudo true")
    assert "a terminal is required to read the password" in str(blind.stderr)
    good = await run("db-1", 'read -r p; printf "%s\\n" "$p" | sudo -S -p "" -v && sudo -n id -u', password + "\n")
    assert (good.exit_status, good.stdout) == (0, "0\n")
    assert (await run("db-1", "sudo -n true")).exit_status == 1  # another shell
    bad = await run("db-1", 'printf "no\\n" | sudo -S -p "" -v')
    assert bad.exit_status == 1
    assert "incorrect password attempt" in str(bad.stderr)
    through = await run("db-1", "sudo -S -p '' cat", password + "\nrest of the input\n")
    assert through.stdout == "rest of the input\n"
    fleet.hosts["db-1"].sudo = "denied"
    assert "not in the sudoers file" in str((await run("db-1", "sudo -S -p '' true", password + "\n")).stderr)
    recorded = " ".join(" ".join(c.argv) for c in fleet.journal)
    assert password not in recorded


async def test_units_are_shown_as_systemd_shows_them(fleet: Sandbox, run: Run) -> None:
    root = fleet.hosts["build-1"].root
    done = await run("build-1", "systemctl show --no-pager -p FragmentPath,ExecStart,MainPID,DropInPaths periphery")
    lines = dict(line.split("=", 1) for line in str(done.stdout).splitlines())
    assert list(lines) == ["MainPID", "ExecStart", "FragmentPath", "DropInPaths"]  # systemd's order
    binary_path = root / "opt/periphery/bin/periphery"
    assert lines["ExecStart"].startswith(f"{{ path=/bin/sh ; argv[]=/bin/sh -lc {binary_path} --config-path ")
    assert lines["DropInPaths"] == f"{root}/etc/systemd/system/periphery.service.d/override.conf"
    cat = await run("build-1", "systemctl cat periphery")
    assert "LimitNOFILE=65536" in str(cat.stdout)
    gone = await run("build-1", "systemctl show -p LoadState,ActiveState nothing.service; systemctl is-active nothing")
    assert gone.stdout == "LoadState=not-found\nActiveState=inactive\ninactive\n"
    assert (await run("build-1", "systemd-run --collect true")).exit_status == 1


async def test_restart_gives_a_new_invocation(fleet: Sandbox, run: Run) -> None:
    show = "systemctl show --value -p InvocationID periphery"
    first = str((await run("web-1", show)).stdout).strip()
    refused = await run("web-1", "systemctl restart periphery")
    assert "Interactive authentication required" in str(refused.stderr)
    assert (await run("web-1", "sudo -n systemctl restart periphery")).exit_status == 0
    second = str((await run("web-1", show)).stdout).strip()
    assert first != second
    old, new = [
        (await run("web-1", f"sudo -n journalctl -u periphery -o cat _SYSTEMD_INVOCATION_ID={i}")).stdout
        for i in (first, second)
    ]
    assert "Exiting all active Terminals" in str(old)
    assert "Komodo Periphery version: v1.19.5" in str(new)
    assert "Exiting" not in str(new)
    iso = await run("web-1", f"sudo -n journalctl -u periphery -n 1 -o short-iso _SYSTEMD_INVOCATION_ID={second}")
    assert re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+0000 web-1 sh\[\d+\]: ", str(iso.stdout))
    assert [r.argv[:2] for r in fleet.mutations("web-1")] == [("systemctl", "restart")] * 2  # the refused one too


async def test_a_crash_loop_says_active_and_then_gives_up(fleet: Sandbox, run: Run) -> None:
    fleet.fault("crash-loop", "web-1", version="1", after=0.6)
    done = await run("web-1", "sudo -n systemctl restart periphery; systemctl is-active periphery")
    assert done.stdout == "active\n"
    service = fleet.hosts["web-1"].systemd.find("periphery")
    assert service is not None
    await until(lambda: service.active == "failed", what="giving up")
    assert "periphery.service: Start request repeated too quickly." in fleet.logs("web-1")
    assert (await run("web-1", "systemctl is-active periphery")).stdout == "failed\n"
    fleet.heal("crash-loop")
    assert (await run("web-1", "sudo -n systemctl start periphery")).exit_status == 1  # the limit still counts
    await run("web-1", "sudo -n systemctl reset-failed periphery")
    assert (await run("web-1", "sudo -n systemctl start periphery")).exit_status == 0
    assert fleet.agent_version("web-1") == "1.19.5"


@pytest.mark.parametrize("content", ["Not Found", ""])
async def test_a_page_instead_of_a_binary_does_not_run(fleet: Sandbox, run: Run, content: str) -> None:
    place = fleet.hosts["web-1"].root / "usr/local/bin/periphery"
    place.write_text(content)
    await run("web-1", "sudo -n systemctl restart periphery")
    assert fleet.agent_version("web-1") == ""


async def test_edited_config_is_really_loaded(fleet: Sandbox, run: Run) -> None:
    config = fleet.hosts["web-1"].root / "etc/komodo/periphery.config.toml"
    config.write_text(config.read_text() + "passkeys = []\n")  # a duplicate key: skipped, open to anyone
    await run("web-1", "sudo -n systemctl restart periphery")
    service = fleet.hosts["web-1"].systemd.find("periphery")
    assert service is not None
    assert service.agent is not None
    assert service.agent.open_to_all
    assert any(line.startswith("WARN: Failed to parse toml file at") for line in fleet.logs("web-1"))


async def test_downloads(fleet: Sandbox, run: Run) -> None:
    url = f"https://github.com/moghtech/komodo/releases/download/v2.3.2/periphery-{ARCH}"
    done = await run("web-1", f"curl -fsSL --connect-timeout 15 --retry 2 -o p {url} && chmod +x p && ./p --version")
    assert (done.exit_status, done.stdout) == (0, "periphery 2.3.2\n")
    data = (fleet.hosts["web-1"].root / "home/ops/p").read_bytes()
    assert data == binary("2.3.2", ARCH)
    assert len(data) > 1 << 20
    api = await run("web-1", "curl -fsSL https://api.github.com/repos/moghtech/komodo/releases/tags/v2.3.2")
    assert f"sha256:{hashlib.sha256(data).hexdigest()}" in str(api.stdout)
    missing = await run("web-1", f"curl -fsSL -o q {url.replace('2.3.2', '9.9.9')}")
    assert (missing.exit_status, missing.stderr) == (22, "curl: (22) The requested URL returned error: 404\n")
    fleet.fault("download-403", "web-1", times=1)
    assert "error: 403" in str((await run("web-1", f"curl -fsSL -o q {url}")).stderr)
    fleet.fault("download-wrong-file", "web-1", times=1)
    await run("web-1", f"curl -fsSL -o q {url}")
    assert "Sign in" in (fleet.hosts["web-1"].root / "home/ops/q").read_text()
    fleet.fault("old-libc", "web-1")
    assert "GLIBC_2.34" in str((await run("web-1", "./p --version")).stderr)
    assert (await run("web-1", "curl -fsSL https://example.org/")).exit_status == 6


async def test_setup_script(fleet: Sandbox, run: Run) -> None:
    url = "https://raw.githubusercontent.com/moghtech/komodo/v2.3.2/scripts/setup-periphery.py"
    await run("web-1", f"curl -fsSL -o s.py {url}; sudo -n {sys.executable} s.py --version=v2.3.2")
    assert fleet.agent_version("web-1") == "2.3.2"


async def test_disk_full(fleet: Sandbox, run: Run) -> None:
    root = fleet.hosts["web-1"].root
    (root / "data").mkdir()
    fleet.fault("disk-full", "web-1", path="/data")
    where = root / "data"
    for command in (
        f"echo x > ~/x; cp ~/x {where}/y",
        f"echo x | cat > {where}/y",
        f"echo x | tee {where}/y",
        f"dd if=/dev/zero of={where}/y bs=1 count=1",
        f"curl -fsSL -o {where}/y https://github.com/moghtech/komodo/releases/download/v2.3.2/periphery-{ARCH}",
    ):
        done = await run("web-1", command)
        assert done.exit_status != 0, command
    assert "No space left on device" in str((await run("web-1", f"echo x | cat > {where}/y")).stderr)
    assert str((await run("web-1", f"df -Pk {where}")).stdout).splitlines()[1].split()[3] == "0"
    assert str((await run("web-1", f"df -Pk {root}")).stdout).splitlines()[1].split()[3] != "0"
    assert (await run("web-1", "cp ~/x ~/z")).exit_status == 0
    fleet.heal()
    assert (await run("web-1", f"cp ~/x {where}/y")).exit_status == 0


async def test_hang(fleet: Sandbox) -> None:
    connection = await connect(fleet, "web-1")
    fleet.fault("hang", "web-1")
    await fleet.settled()
    with pytest.raises((TimeoutError, asyncssh.Error, OSError)):
        await asyncio.wait_for(connection.run("true", check=True), 0.5)
    with pytest.raises((TimeoutError, asyncssh.Error)):
        await asyncio.wait_for(connect(fleet, "web-1"), 0.5)
    fleet.heal()
    await fleet.settled()
    async with await connect(fleet, "web-1") as again:
        assert (await again.run("true")).exit_status == 0


def test_fault_names() -> None:
    assert {"unreachable", "disk-full", "wrong-key", "dump-empty", "up-does-nothing"} <= faults.KNOWN
    with pytest.raises(ValueError, match="no fault named 'typo'"):
        faults.Faults().set("typo", "", {})


async def test_processes_do_not_outlive_the_sandbox(tmp_path: Path) -> None:
    async with await Sandbox.start(tmp_path, servers=1, speed=20) as sandbox, await connect(sandbox, "web-1") as client:
        done = await client.run("setsid sleep 600 </dev/null >/dev/null 2>&1 & echo $!")
        number = int(str(done.stdout))
    assert await asyncio.to_thread(_ended, number)


def _ended(number: int) -> bool:
    """Killed it is when the sandbox has stopped; on a busy machine the kernel takes a moment to bury it."""
    end = time.monotonic() + 5
    while time.monotonic() < end:
        shown = subprocess.run(["ps", "-o", "stat=", "-p", str(number)], capture_output=True, text=True, check=False)
        if shown.stdout.strip() in ("", "Z", "Zs"):
            return True
        time.sleep(0.05)
    return False


async def test_two_sandboxes_side_by_side(tmp_path: Path) -> None:
    async with (
        await Sandbox.start(tmp_path / "a", servers=1, speed=20) as first,
        await Sandbox.start(tmp_path / "b", servers=1, speed=20) as second,
    ):
        assert first.world.net != second.world.net
        assert first.hosts["web-1"].address != second.hosts["web-1"].address
