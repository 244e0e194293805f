"""`make bench`: this tool against bare asyncssh, pyinfra and Ansible, the same steps on the same machines, in turns.

Medians and ratios to bare asyncssh, then a kill -9 in the middle of each. Linux, root, OpenSSH's server.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench import machines
from bench.contestants import Contestant, Fleet, Killed, Measured, contestants, killed, measured
from bench.measure.usage import machine

NAMES = ("asyncssh", "komodo-upgrade", "pyinfra", "ansible")
GOOD = {"active": True, "version": machines.TARGET, "runs": machines.TARGET, "key": True, "comments": True}
GOOD |= {"proven": True, "backup": True}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.compare", description=__doc__)
    parser.add_argument("--hosts", type=int, nargs="+", default=[20, 100])
    parser.add_argument("--repeat", type=int, default=3, help="runs of each; the median counts")
    parser.add_argument("--only", nargs="+", choices=NAMES, default=list(NAMES))
    parser.add_argument(
        "--peers", type=Path, default=Path("build/bench-peers"), help="environment of pyinfra and Ansible"
    )
    memory = Path("/dev/shm")  # noqa: S108 - a folder of our own is made in it
    parser.add_argument(
        "--hosts-in", type=Path, default=memory if memory.is_dir() else None, help="the hosts' disks; /dev/shm: memory"
    )
    parser.add_argument("--no-kill", action="store_true", help="leave the kill -9 out")
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep every run")
    options = parser.parse_args()
    _needs_sshd()
    found: dict[int, Found] = {}
    for count in options.hosts:
        with _temporary(options.hosts_in) as fleet, _temporary(None) as runs:
            found[count] = asyncio.run(_measure(fleet, runs, count, options))
    sys.stdout.write("\n".join(_report(found)) + "\n")
    if options.json:
        everything = {n: {k: [asdict(m) for m in ms] for k, ms in f.runs.items()} for n, f in found.items()}
        kills = {n: {k: asdict(one) for k, one in f.kills.items()} for n, f in found.items()}
        text = json.dumps({"machine": machine(), "runs": everything, "killed": kills}, indent=1)
        options.json.write_text(text + "\n")


@contextmanager
def _temporary(parent: Path | None) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="ku-bench-", dir=parent, ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def _needs_sshd() -> None:
    if os.getuid():
        raise SystemExit("the bench runs OpenSSH servers with root's logins: start it as root")
    if not Path(machines.SSHD).exists():
        sys.stderr.write("openssh-server is missing and is installed now\n")
        apt = shutil.which("apt-get")
        command = [apt or "apt-get", "install", "--yes", "--quiet", "--no-install-recommends", "openssh-server"]
        if not apt or subprocess.run(command, stdout=sys.stderr).returncode:  # noqa: S603
            raise SystemExit(f"there is no {machines.SSHD}, and it could not be installed: install OpenSSH's server")


class Found:
    """All runs of one size."""

    def __init__(self) -> None:
        self.runs: dict[str, list[Measured]] = {}
        self.kills: dict[str, Killed] = {}


async def _measure(hosts: Path, folder: Path, count: int, options: argparse.Namespace) -> Found:
    """Run all tools in turns, so that other work on the machine affects all of them."""
    found = Found()
    async with Fleet.up(hosts, count) as fleet:
        every = contestants(fleet, options.peers.resolve(), options.only)
        for turn in range(options.repeat):
            for one in every:
                run = await measured(fleet, one, folder / f"{one.name}-{turn}")
                _check(one, run, fleet)
                found.runs.setdefault(one.name, []).append(run)
                parts = ", ".join(f"{name} {seconds:.2f}" for name, seconds in run.cpu.items())
                rest = f"hosts {run.hosts:.2f}, others {run.foreign:.2f}"
                _tell(f"{count} hosts, {one.name}: {run.wall:.2f} s; CPU {parts}, {rest}")
        for one in () if options.no_kill else every:
            kill = await killed(fleet, one, folder / f"{one.name}-killed")
            found.kills[one.name] = kill
            _tell(f"{count} hosts, {one.name} killed: again {kill.again.wall:.2f} s, exit code {kill.again.code}")
    return found


def _check(one: Contestant, run: Measured, fleet: Fleet) -> None:
    """Refuse a run that did not upgrade everything."""
    bad = {name: seen for name, seen in run.seen.items() if not _good(seen)}
    if run.code or bad or len(run.seen) != fleet.count:
        log = one.log.read_text(errors="replace")[-4000:]
        raise SystemExit(f"{log}\n{one.name} ended with {run.code}; not upgraded: {json.dumps(bad, indent=1)[:2000]}")


def _good(seen: dict[str, Any]) -> bool:
    return all(seen[fact] == wanted for fact, wanted in GOOD.items())


def _tell(text: str) -> None:
    sys.stderr.write(f"{time.strftime('%H:%M:%S')} {text}\n")


# --- the tables ---------------------------------------------------------------------------------------------------


def _report(found: dict[int, Found]) -> Iterator[str]:
    yield f"{machine()}; Python {sys.version.split()[0]}"
    for count, one in found.items():
        yield f"\n{count} hosts, median of {min(len(runs) for runs in one.runs.values())} runs each, in turns\n"
        yield from _times(one.runs)
        if one.kills:
            yield f"\nkill -9 when half of {count} agents had been stopped, then started again\n"
            yield from _kills(one, count)


def _times(runs: dict[str, list[Measured]]) -> Iterator[str]:
    yield from _head(
        "",
        "wall s (min to max)",
        "× asyncssh",
        "controller CPU s",
        "× asyncssh",
        "hosts' CPU s",
        "× asyncssh",
        "others",
    )
    medians = {
        name: [statistics.median(getattr(m, part) for m in ms) for part in ("wall", "controller", "hosts", "foreign")]
        for name, ms in runs.items()
    }
    floor = medians.get("asyncssh", next(iter(medians.values())))
    for name, ms in runs.items():
        (wall, cpu, hosts, foreign), walls = medians[name], [m.wall for m in ms]
        yield (
            f"| {name} | {wall:.2f} ({min(walls):.2f} to {max(walls):.2f}) | {wall / floor[0]:.2f} | {cpu:.2f} | "
            f"{cpu / floor[1]:.2f} | {hosts:.2f} | {hosts / floor[2]:.2f} | {foreign:.1f} |"
        )
    if tool := runs.get("komodo-upgrade"):
        parts = {part: statistics.median(m.cpu[part] for m in tool) for part in tool[0].cpu}
        yield "\nThe tool's controller CPU: " + ", ".join(f"{part} {seconds:.2f} s" for part, seconds in parts.items())
        if "ansible" in medians:
            yield f"Ansible's wall is {medians['ansible'][0] / medians['komodo-upgrade'][0]:.1f} × the tool's."


def _head(*titles: str) -> Iterator[str]:
    yield f"| {' | '.join(titles)} |"
    yield "|---" * len(titles) + "|"


def _kills(found: Found, count: int) -> Iterator[str]:
    counted = ("downloads", "stops", "starts", "v1 kept", "left behind")
    yield from _head("", "agents down after the kill", "again: s", "undisturbed: s", "upgraded", *counted)
    for name, kill in found.kills.items():
        down = sum(not seen["active"] for seen in kill.then.values())
        seen = kill.again.seen.values()
        sums = [sum(one[what] for one in seen) for what in ("downloads", "stops", "starts")]
        usual = statistics.median(run.wall for run in found.runs[name])
        left = Counter(kind for one in seen for kind in one["left"])
        yield (
            f"| {name} | {down} | {kill.back + kill.again.wall:.1f} (exit code {kill.again.code}) | {usual:.1f} | "
            f"{sum(map(_good, seen))} of {count} | {' | '.join(map(str, sums))} | "
            f"{sum(one['backup'] for one in seen)} | "
            f"{', '.join(f'{n} × {kind}' for kind, n in left.items()) or 'nothing'} |"
        )


if __name__ == "__main__":
    main()
