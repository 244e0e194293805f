"""Detached jobs run once, whatever happens to the calls that wait for them."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import textwrap
from datetime import timedelta
from itertools import pairwise
from pathlib import Path

import pytest

from hosts.exec.script import Script
from hosts.host import Completed
from hosts.ssh.pool import Hosts
from model.errors import CommandFailed, CommandTimedOut, DiskFull, JobLost, PlanChanged, Unreachable

from .conftest import CHANGE, Ground, Machine, until

COUNT = 'echo run >>"$1"; '
SLOW = Script("slow.sh", COUNT + 'while [ ! -e "$2" ]; do sleep 0.05; done; echo finished; cat')


async def start(machine: Machine, script: Script, *, step: str = "step", **more: object) -> Completed:
    options: dict[str, object] = {"change": CHANGE, "timeout": timedelta(seconds=30), **more}
    return await machine.host.job(
        f"{CHANGE}/web-1/1/{step}",
        machine.run_folder,
        script,
        **options,  # type: ignore[arg-type]
    )


def runs(path: Path) -> int:
    return path.read_text().count("run") if path.exists() else 0


async def test_result_and_repetition(machine: Machine) -> None:
    count = machine.server.folder / "count"
    script = Script("once.sh", COUNT + 'cat; printf "%s" "$2" >&2; printf "%s" "$KU_STAMP"')
    data = bytes(range(256)) * 1000
    for _ in range(3):
        done = await start(machine, script.given(str(count), "it's\n\n a \\ test"), data=data)
        assert done.code == 0
        assert done.out == data + CHANGE.encode()
        assert done.err == "it's\n\n a \\ test"
    assert runs(count) == 1


async def test_state_is_for_its_owner_only(machine: Machine) -> None:
    await start(machine, Script("t", ":"))
    state = Path(machine.spec.state_dir)
    for path in [state, *list_all(state)]:
        assert path.stat().st_mode & 0o077 == 0, path
    assert (Path(machine.spec.state_dir) / "lock" / "owner").read_text().splitlines()[0] == f"prod {CHANGE}"


def list_all(folder: Path) -> list[Path]:
    return list(folder.rglob("*"))


async def test_data_is_never_a_file(machine: Machine) -> None:
    seen = machine.server.folder / "seen"
    go = machine.server.folder / "go"
    script = Script(
        "t", 'IFS= read -r secret; echo "$secret" | cksum; : >"$1"; while [ ! -e "$2" ]; do sleep 0.05; done'
    )
    running = asyncio.create_task(start(machine, script.given(str(seen), str(go)), data=b"hunter2-hunter2\n"))
    await until(seen.exists)
    for path in machine.server.folder.rglob("*"):
        if path.is_file():
            assert b"hunter2" not in path.read_bytes(), path
            assert b"aHVudGVyMi" not in path.read_bytes(), path
    go.touch()
    assert (await running).out.endswith(b" 16\n")
    assert not (machine.job_folder() / "in").exists()


async def test_a_script_after_the_job_runs_in_every_call(machine: Machine) -> None:
    """In the same round trip, also after a job that ended long ago."""
    state = machine.server.folder / "things.now"
    report = Script("report.sh", 'cat "$1"; [ ! -e "${1%.*}.bad" ] || { echo "no report" >&2; exit 72; }')

    script = Script("t", 'echo ran; echo said >&2; echo one >"$1"')

    async def step() -> Completed:
        return await start(machine, script.given(str(state)), then=report.given(str(state)))

    first = await step()
    assert (first.text, first.err.strip(), first.after) == ("ran\n", "said", b"one\n")
    state.write_text("result\t0\n")
    again = await step()
    assert (again.text, again.after) == ("ran\n", b"result\t0\n")
    state.with_suffix(".bad").write_text("")
    with pytest.raises(PlanChanged, match="no report"):
        await step()


async def test_a_failed_job_is_kept_and_run_again(machine: Machine) -> None:
    count = machine.server.folder / "count"
    script = Script("fails.sh", COUNT + '[ -e "$2" ] || { echo "not yet" >&2; exit 5; }; echo now')
    ready = machine.server.folder / "ready"
    for _ in range(2):
        with pytest.raises(CommandFailed) as caught:
            await start(machine, script.given(str(count), str(ready)))
        assert (caught.value.code, caught.value.tail) == (5, "not yet")
        assert str(machine.job_folder()) in caught.value.residue
    ready.touch()
    assert (await start(machine, script.given(str(count), str(ready)))).text == "now\n"
    assert runs(count) == 3
    kept = sorted(path.name for path in machine.job_folder().parent.iterdir())
    assert kept == ["step", "step.failed.1", "step.failed.2"]


@pytest.mark.parametrize(("code", "kind"), [(70, DiskFull), (72, PlanChanged)])
async def test_typed_errors_of_jobs(machine: Machine, code: int, kind: type[Exception]) -> None:
    with pytest.raises(kind):
        await start(machine, Script("t", f"echo why >&2; exit {code}"))


async def test_a_job_outlives_a_lost_connection(machine: Machine) -> None:
    count, go = machine.server.folder / "count", machine.server.folder / "go"
    running = asyncio.create_task(start(machine, SLOW.given(str(count), str(go)), data=b"data"))
    await until(lambda: runs(count))
    machine.server.cut()
    with pytest.raises(Unreachable) as caught:
        await running
    assert str(machine.job_folder()) in caught.value.residue
    attached = asyncio.create_task(start(machine, SLOW.given(str(count), str(go)), data=b"data"))
    await asyncio.sleep(0.3)
    assert not attached.done()
    go.touch()
    assert (await attached).text == "finished\ndata"
    assert runs(count) == 1
    assert machine.server.logins == 2


async def test_a_job_outlives_cancelling_and_time_out(machine: Machine) -> None:
    count, go = machine.server.folder / "count", machine.server.folder / "go"
    running = asyncio.create_task(start(machine, SLOW.given(str(count), str(go))))
    await until(lambda: runs(count))
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    with pytest.raises(CommandTimedOut, match=r"the job continues"):
        await start(machine, SLOW.given(str(count), str(go)), timeout=timedelta(seconds=0.5))
    go.touch()
    assert (await start(machine, SLOW.given(str(count), str(go)))).text == "finished\n"
    assert runs(count) == 1


async def test_a_job_outlives_a_killed_worker(machine: Machine) -> None:
    count, go = machine.server.folder / "count", machine.server.folder / "go"
    fields = {"address": "127.0.0.1", "port": machine.spec.port, "key": machine.spec.key_files[0]}
    program = textwrap.dedent(
        """
        import asyncio, json, sys
        from datetime import timedelta
        from hosts.ssh.pool import Hosts
        from hosts.exec.script import Script
        from model.fleet.spec import HostSpec, Sudo
        given = json.loads(sys.argv[1])
        async def main():
            async with Hosts() as hosts:
                spec = HostSpec(name="web-1", address=given["address"], port=given["port"], user="ops",
                    key_files=(given["key"],), known_hosts=given["known_hosts"], ssh_config="none", sudo=Sudo.NONE,
                    state_dir=given["state_dir"])
                host = await hosts.get(spec)
                await host.job(given["op"], given["folder"], Script("slow.sh", given["script"], tuple(given["args"])),
                    data=b"data", change=given["change"], timeout=timedelta(seconds=60))
        asyncio.run(main())
        """
    )
    given = {
        **fields,
        "known_hosts": machine.spec.known_hosts,
        "state_dir": machine.spec.state_dir,
        "op": f"{CHANGE}/web-1/1/step",
        "folder": machine.run_folder,
        "script": SLOW.text,
        "args": [str(count), str(go)],
        "change": CHANGE,
    }
    worker = await asyncio.create_subprocess_exec(sys.executable, "-c", program, json.dumps(given))
    try:
        await until(lambda: runs(count))
    finally:
        worker.kill()
        await worker.wait()
    attached = asyncio.create_task(start(machine, SLOW.given(str(count), str(go)), data=b"data"))
    await asyncio.sleep(0.3)
    go.touch()
    assert (await attached).text == "finished\ndata"
    assert runs(count) == 1


async def test_many_callers_share_one_run(machine: Machine, ground: Ground) -> None:
    """From two workers at the same moment."""
    count, go = machine.server.folder / "count", machine.server.folder / "go"
    async with Hosts() as others:
        other = replace_host(machine, await others.get(machine.spec))
        calls = [
            asyncio.create_task(start(each, SLOW.given(str(count), str(go)), data=b"data"))
            for each in (machine, other, machine, other, machine, other)
        ]
        await until(lambda: runs(count))
        await asyncio.sleep(0.2)
        go.touch()
        results = await asyncio.gather(*calls)
    assert {result.out for result in results} == {b"finished\ndata"}
    assert runs(count) == 1


def replace_host(machine: Machine, host: object) -> Machine:
    return Machine(machine.server, host, machine.spec)  # type: ignore[arg-type]


async def test_heartbeats(machine: Machine) -> None:
    beats: list[float] = []
    loop = asyncio.get_running_loop()
    await start(machine, Script("t", "sleep 3.5"), on_progress=lambda: beats.append(loop.time()))
    assert len(beats) >= 3
    assert max(b - a for a, b in pairwise(beats)) < 2.5


async def test_a_lost_job_is_reported_once(machine: Machine) -> None:
    count, go = machine.server.folder / "count", machine.server.folder / "go"
    running = asyncio.create_task(start(machine, SLOW.given(str(count), str(go))))
    await until(lambda: runs(count))
    pid = int((machine.job_folder() / "pid").read_text().split()[0])
    os.killpg(pid, signal.SIGKILL)
    with pytest.raises(JobLost, match=r"step\.lost\.1"):
        await running
    go.touch()
    assert (await start(machine, SLOW.given(str(count), str(go)))).text == "finished\n"
    assert runs(count) == 2


async def test_a_job_whose_runner_was_killed_is_not_started_twice(machine: Machine) -> None:
    count, go = machine.server.folder / "count", machine.server.folder / "go"
    running = asyncio.create_task(start(machine, SLOW.given(str(count), str(go))))
    await until(lambda: runs(count))
    os.kill(int((machine.job_folder() / "pid").read_text().split()[0]), signal.SIGKILL)
    await asyncio.sleep(1)
    assert not running.done()
    go.touch()
    with pytest.raises(JobLost):
        await running
    assert runs(count) == 1


@pytest.mark.parametrize("field", [1, 2, 3], ids=["start time", "boot id", "start time of PID 1"])
async def test_a_restarted_host(machine: Machine, field: int) -> None:
    """The same process number, but from before the restart."""
    script = Script("once.sh", COUNT)
    count = machine.server.folder / "count"
    await start(machine, script.given(str(count)))
    (machine.job_folder() / "rc.0").unlink()
    words = (machine.job_folder() / "pid").read_text().split()
    other = await asyncio.create_subprocess_exec("sleep", "60", start_new_session=True)
    try:
        words[0], words[4] = str(other.pid), str(other.pid)
        words[1] = Path(f"/proc/{other.pid}/stat").read_text().rpartition(") ")[2].split()[19]  # noqa: ASYNC240
        words[field] = "12345"
        (machine.job_folder() / "pid").write_text(" ".join(words) + "\n")
        with pytest.raises(JobLost):
            await start(machine, script.given(str(count)))
        assert runs(count) == 1
    finally:
        other.kill()
        await other.wait()


async def test_a_starter_that_died_before_it_began(machine: Machine) -> None:
    """A folder without a runner: nothing ever ran, so the job is started."""
    machine.job_folder().mkdir(parents=True)
    gone = await asyncio.create_subprocess_exec("true")
    await gone.wait()
    (machine.job_folder() / "starter").write_text(f"{gone.pid} 12345\n")
    assert (await start(machine, Script("t", "echo ok"))).text == "ok\n"
    assert (machine.job_folder().parent / "step.lost.1").is_dir()


async def test_an_incomplete_input_starts_nothing(machine: Machine) -> None:
    """The connection breaks while the data is on its way."""
    count = machine.server.folder / "count"
    running = asyncio.create_task(start(machine, Script("t", COUNT).given(str(count)), data=os.urandom(40_000_000)))
    await until(lambda: machine.server.sessions)
    await asyncio.sleep(0.05)
    machine.server.cut()
    with pytest.raises(Unreachable):
        await running
    assert not machine.job_folder().exists()
    assert not count.exists()


async def test_an_invalidated_step_runs_again(machine: Machine) -> None:
    count = machine.server.folder / "count"
    script = Script("t", COUNT)
    await start(machine, script.given(str(count)))
    await machine.host.invalidate(machine.run_folder, f"{CHANGE}/web-1/1", change=CHANGE)
    await machine.host.invalidate(machine.run_folder, f"{CHANGE}/web-1/1", change=CHANGE)
    await start(machine, script.given(str(count)))
    assert runs(count) == 2
    assert (machine.job_folder().parent.parent / "1.invalid.1" / "step").is_dir()


async def test_invalidating_several_attempts_waits_for_each(machine: Machine) -> None:
    counts = [machine.server.folder / f"count-{number}" for number in (1, 2)]
    jobs: list[asyncio.Task[Completed]] = []
    for number, count in enumerate(counts, start=1):
        op = f"{CHANGE}/web-1/{number}/step"
        script = SLOW.given(str(count), str(machine.server.folder / "never"))
        begun = machine.host.job(op, machine.run_folder, script, change=CHANGE, timeout=timedelta(minutes=1))
        jobs.append(asyncio.create_task(begun))
    await until(lambda: all(runs(count) for count in counts))
    folders = [Path(machine.run_folder) / "jobs" / "web-1" / str(number) / "step" for number in (1, 2)]
    pids = [int((folder / "pid").read_text().split()[0]) for folder in folders]
    ops = [f"{CHANGE}/web-1/{number}/step" for number in (1, 2, 3)]
    await machine.host.invalidate(machine.run_folder, *ops, change=CHANGE, patience=timedelta(0))
    await until(lambda: not any(group_lives(pid) for pid in pids))
    assert not any(folder.exists() for folder in folders)
    for job in jobs:
        job.cancel()
    await asyncio.gather(*jobs, return_exceptions=True)


async def test_a_waiting_call_never_restarts_an_invalidated_job(machine: Machine) -> None:
    """Nor does a call without a connection: its process on the host may still wait."""
    count, go = machine.server.folder / "count", machine.server.folder / "go"
    waiting = asyncio.create_task(start(machine, SLOW.given(str(count), str(go))))
    await until(lambda: runs(count))
    await machine.host.invalidate(machine.run_folder, f"{CHANGE}/web-1/1", change=CHANGE, patience=timedelta(0))
    with pytest.raises(JobLost, match=r"invalidated by an undo|without an exit code"):
        await waiting
    assert runs(count) == 1
    assert not machine.job_folder().exists()


async def test_invalidating_waits_then_stops_the_job(machine: Machine) -> None:
    count, go = machine.server.folder / "count", machine.server.folder / "go"
    running = asyncio.create_task(start(machine, SLOW.given(str(count), str(go))))
    await until(lambda: runs(count))
    pid = int((machine.job_folder() / "pid").read_text().split()[0])
    await machine.host.invalidate(machine.run_folder, f"{CHANGE}/web-1/1", change=CHANGE, patience=timedelta(seconds=1))
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await until(lambda: not group_lives(pid))


def group_lives(group: int) -> bool:
    """Anything but zombies."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            words = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(words[2]) == group and words[0] not in "ZX":
            return True
    return False


async def test_a_full_disk_does_not_hide_how_a_job_ended(machine: Machine) -> None:
    """All its output fails, and its end is still recorded (by a rename)."""
    go = machine.server.folder / "go"
    script = Script("t", 'while [ ! -e "$1" ]; do sleep 0.05; done; echo x >/dev/full')
    running = asyncio.create_task(start(machine, script.given(str(go))))
    await until((machine.job_folder() / "fed").exists)
    go.touch()
    with pytest.raises(DiskFull):
        await running
    assert [path.name for path in machine.job_folder().glob("rc.*")]


async def test_systemd_starts_jobs_if_it_runs(ground: Ground, hosts: Hosts) -> None:
    """A stand-in for systemd-run starts it elsewhere: other session, other environment, no standard input."""
    server = await ground.server()
    server.tool(
        "systemd-run",
        '#!/bin/sh\necho "$@" >"$HOME/unit"\nfor last; do :; done\n'
        'env -i HOME=/elsewhere PATH=/usr/bin:/bin setsid sh "$last" </dev/null >/dev/null 2>&1 &\n',
    )
    host = await hosts.get(ground.spec(server))
    machine = Machine(server, host, host.spec)
    assert (await start(machine, Script("t", "cat; echo $HOME"), data=b"data ")).text == "data /elsewhere\n"
    assert "--collect" in (server.folder / "unit").read_text()


async def test_a_systemd_that_accepts_and_does_nothing(ground: Ground, hosts: Hosts) -> None:
    server = await ground.server()
    server.tool("systemd-run", "#!/bin/sh\nexit 0\n")
    host = await hosts.get(ground.spec(server))
    machine = Machine(server, host, host.spec)
    assert (await start(machine, Script("t", "cat"), data=b"data")).text == "data"


@pytest.mark.parametrize("op", ["x", f"{CHANGE}/../1/step", f"{CHANGE}/a b/1/step", "other/web-1/1/step"])
async def test_invalid_operation_ids_are_refused(machine: Machine, op: str) -> None:
    with pytest.raises(ValueError, match=r"operation|path"):
        await machine.host.job(op, machine.run_folder, Script("t", ":"), change=CHANGE, timeout=timedelta(seconds=5))
