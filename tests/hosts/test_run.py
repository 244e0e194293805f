"""Scripts over a real SSH connection, with a real shell at its end."""

from __future__ import annotations

import asyncio
import subprocess
from datetime import timedelta
from pathlib import Path

import pytest

from hosts.exec.protocol import COMMAND
from hosts.exec.script import Script, parse
from hosts.host import Completed
from hosts.ssh.pool import Hosts
from model.errors import (
    CommandFailed,
    CommandTimedOut,
    DiskFull,
    HostError,
    HostLocked,
    PermissionRefused,
    PlanChanged,
    UpgradeError,
)

from .conftest import Ground, Machine, until

TORTURE = (
    "",
    " ",
    "plain",
    "two words",
    "it's",
    '"quoted" $HOME `id` $(id) \\ \\n !',
    "line one\nline two",
    "\n",
    "ends with a newline\n",
    "\n\n starts with two",
    "tab\there ",
    "-n",
    "--",
    "*",
    "überall 中文 🦎 \x81\x88",
    "\x01\x02\x7f\r",
    "x" * 20_000,
)
ECHO = Script("echo", 'for a in "$@"; do printf "%s\\0" "$a"; done; cat')


async def test_arguments_and_data_arrive_byte_for_byte(machine: Machine) -> None:
    data = bytes(range(256)) * 5000 + b"\n"
    done = await machine.host.run(ECHO.given(*TORTURE), data=data)
    assert done.out == b"".join(arg.encode() + b"\0" for arg in TORTURE) + data


async def test_nothing_but_a_constant_is_the_command(machine: Machine) -> None:
    await machine.host.run(ECHO.given("an argument"), data=b"some data")
    assert machine.server.commands == [COMMAND]
    assert not set("\\!\n") & set(COMMAND)
    assert COMMAND.count("'") == 2


async def test_a_nul_cannot_be_an_argument(machine: Machine) -> None:
    with pytest.raises(ValueError, match="NUL"):
        await machine.host.run(ECHO.given("a\0b"))


@pytest.mark.parametrize("code", [0, 1, 3, 126, 255])
async def test_the_exit_code_comes_back(machine: Machine, code: int) -> None:
    done = await machine.host.run(Script("t", 'echo out; echo err >&2; exit "$1"').given(str(code)), check=False)
    assert (done.code, done.text, done.err) == (code, "out\n", "err")


async def test_output_without_end_of_line_and_that_resembles_a_frame(machine: Machine) -> None:
    text = "\nku-0123 end 7\n\nku-0123 begin\nno line break at the end"
    assert (await machine.host.run(Script("t", 'printf %s "$1"').given(text))).text == text
    assert (await machine.host.run(Script("t", ":"))).out == b""


async def test_scripts_stop_at_the_first_failing_command(machine: Machine) -> None:
    with pytest.raises(CommandFailed) as caught:
        await machine.host.run(Script("stops.sh", "echo before >&2; false; echo after >&2"))
    assert caught.value.code == 1
    assert caught.value.tail == "before"
    with pytest.raises(CommandFailed):
        await machine.host.run(Script("stops.sh", 'echo "$unset_variable"'))


@pytest.mark.parametrize(
    ("code", "kind"),
    [(70, DiskFull), (71, PermissionRefused), (72, PlanChanged), (73, HostLocked), (74, HostError), (9, CommandFailed)],
)
async def test_exit_codes_with_a_meaning(machine: Machine, code: int, kind: type[UpgradeError]) -> None:
    script = Script("meaning.sh", Script.load("hosts.sh", "clock.sh").text + '\ndie "$1" "what happened on /srv"')
    with pytest.raises(kind) as caught:
        await machine.host.run(script.given(str(code)))
    assert type(caught.value) is kind
    assert "what happened on /srv" in str(caught.value)
    assert str(caught.value).startswith("web-1: ")
    assert not caught.value.transient


async def test_a_full_disk_is_recognised_by_its_message(machine: Machine) -> None:
    with pytest.raises(DiskFull, match="No space left on device"):
        await machine.host.run(Script("full.sh", 'printf "%s" "$1" | cat >/dev/full; echo never').given("x" * 10_000))
    with pytest.raises(DiskFull):
        await machine.host.run(Script("full.sh", "echo x >/dev/full"))


async def test_permission_denied_is_recognised_by_its_message(machine: Machine) -> None:
    script = Script("t", "echo \"cp: cannot open '/etc/shadow': Permission denied\" >&2; exit 1")
    with pytest.raises(PermissionRefused, match="/etc/shadow"):
        await machine.host.run(script)


@pytest.mark.parametrize("after", ["", "sleep 0.3; "])
async def test_a_script_that_is_killed(machine: Machine, after: str) -> None:
    """Also while its watchdog runs, which must not hold the channel open."""
    with pytest.raises(CommandFailed, match=r"victim\.sh was killed on the host \(signal KILL\)"):
        await machine.host.run(Script("victim.sh", f"{after}kill -9 $$"), timeout=timedelta(seconds=30))


async def test_what_login_scripts_print_is_dropped(ground: Ground, hosts: Hosts) -> None:
    noisy = ground.folder / "noisy"
    noisy.write_text(
        '#!/bin/sh\necho "Welcome!"; echo "ku- begin"; printf "no line break"; echo "stty: not a tty" >&2\n'
        'exec /bin/sh -c "$1"\n'
    )
    noisy.chmod(0o755)
    server = await ground.server(shell=(str(noisy),))
    done = await (await hosts.get(ground.spec(server))).run(Script("t", "echo mine; echo words >&2"))
    assert (done.out, done.err) == (b"mine\n", "words")


async def test_a_login_shell_that_runs_nothing(ground: Ground, hosts: Hosts) -> None:
    server = await ground.server(shell=("/bin/sh", "-c", "echo 'This account is currently not available.' >&2; exit 1"))
    host = await hosts.get(ground.spec(server))
    with pytest.raises(CommandFailed, match="not available"):
        await host.run(Script("t", ":"))


async def test_standard_error_is_cleaned_and_short(machine: Machine) -> None:
    script = Script(
        "t",
        r"""printf '\033[31mred\033[0m mongodb://admin:hunter2@db/x\npasskeys = ["hunter3"]\n' >&2
i=0; while [ $i -lt 2000 ]; do echo "line $i" >&2; i=$((i + 1)); done
printf '\033[1mKOMODO_API_SECRET: hunter4\033[0m mongodb://admin:hunter2@db\n' >&2""",
    )
    err = (await machine.host.run(script)).err
    assert len(err.encode()) <= 4096
    assert "hunter" not in err
    assert "\x1b" not in err
    assert "line 1999" in err
    assert err.splitlines()[0].startswith("line ")


async def test_a_script_that_does_not_end(machine: Machine) -> None:
    with pytest.raises(CommandTimedOut) as caught:
        await machine.host.run(Script("slow.sh", "sleep 60"), timeout=timedelta(seconds=0.5))
    assert caught.value.transient
    assert (await machine.host.run(Script("t", "echo ok"))).text == "ok\n"


async def test_a_script_that_leaves_something_running_does_not_hang(machine: Machine) -> None:
    done = await machine.host.run(Script("t", "sleep 5 & echo $!"), timeout=timedelta(seconds=4))
    assert int(done.text) > 1


async def test_a_script_that_does_not_read_its_data(machine: Machine) -> None:
    done = await machine.host.run(Script("t", "echo ok"), data=b"x" * 20_000_000)
    assert done.text == "ok\n"


async def test_read(machine: Machine) -> None:
    path = machine.server.folder / "a file"
    data = bytes(range(256)) * 100 + b"\n\n"
    path.write_bytes(data)
    path.chmod(0o640)
    found = await machine.host.read(str(path))
    assert found is not None
    assert (found.data, found.mode, found.path) == (data, "0640", str(path))
    stat = path.stat()
    assert found.owner == f"{stat.st_uid}:{stat.st_gid}"
    assert found.sha256 == __import__("hashlib").sha256(data).hexdigest()
    assert "x00" not in repr(found)
    assert await machine.host.read(str(path) + " not there") is None
    with pytest.raises(CommandFailed, match="at most 100"):
        await machine.host.read(str(path), limit=100)
    with pytest.raises(CommandFailed, match="folder"):
        await machine.host.read(str(machine.server.folder))


async def test_read_of_an_empty_file(machine: Machine) -> None:
    path = machine.server.folder / "empty"
    path.touch()
    found = await machine.host.read(str(path))
    assert found is not None
    assert found.data == b""


async def test_cancelling_leaves_the_connection_alone(machine: Machine) -> None:
    running = asyncio.create_task(machine.host.run(Script("slow.sh", "sleep 30")))
    await asyncio.sleep(0.2)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert (await machine.host.run(Script("t", "echo ok"))).text == "ok\n"
    assert machine.server.logins == 1


def test_output_is_not_shown_by_accident() -> None:
    assert "hunter2" not in repr(Completed(0, b"hunter2", ""))


async def test_clock(machine: Machine) -> None:
    from datetime import UTC, datetime

    assert abs((await machine.host.clock()) - datetime.now(UTC)) < timedelta(seconds=5)


def test_parse() -> None:
    assert parse("a\t1\nnoise\nb\tx\ty\na\t2\n") == {"a": ["1", "2"], "b": ["x\ty"]}


def test_load_puts_what_a_script_needs_in_front(tmp_path: Path) -> None:
    script = Script.load("hosts.sh", "unlock.sh", state="/x", change="y")
    assert script.name == "unlock.sh"
    assert script.text.index("die()") < script.text.index("ku_lock()") < script.text.index("say unlocked")
    assert script.words == ("state", "/x", "change", "y", "--")


HANGS = Script("hangs", """
    (
        sleep 1000 &
        printf '%s ' "$!" >>"$1"
        wait
    ) &
    printf '%s %s\\n' "$!" "$(exec sh -c 'echo $PPID')" >>"$1"
    echo begun
    exec sleep 1000
""")  # fmt: skip


@pytest.mark.parametrize("end", ["timeout", "cancel"])
async def test_a_read_that_hangs_is_ended_on_the_host_itself(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    """With all processes that it has started, because no one reads its channel any more."""
    monkeypatch.setattr("hosts.host._WATCHDOG", timedelta(seconds=1))
    noted = tmp_path / "pids"
    hanging = asyncio.create_task(machine.host.run(HANGS.given(str(noted)), timeout=timedelta(seconds=4)))
    # Each process notes itself with one write, in any order.
    await until(lambda: noted.exists() and len(noted.read_text().split()) == 3)
    pids = [int(word) for word in noted.read_text().split()]
    assert len(pids) == 3
    assert all(lives(pid) for pid in pids)
    if end == "cancel":
        hanging.cancel()
        await asyncio.wait([hanging])
        assert hanging.cancelled()
    else:
        with pytest.raises(CommandTimedOut):
            await hanging
    await until(lambda: not any(lives(pid) for pid in pids))
    assert (await machine.host.run(ECHO.given("there"))).text == "there\0"


def lives(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


async def test_a_read_that_ends_leaves_no_watchdog(machine: Machine) -> None:
    done = await machine.host.run(Script("t", "echo $$"), timeout=timedelta(seconds=4321))
    shell = int(done.text)

    def timing() -> list[str]:
        found = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
        return [line for line in found.splitlines() if line == "sleep 4326"]

    await until(lambda: not lives(shell) and not timing())
