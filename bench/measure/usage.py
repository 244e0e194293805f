"""CPU seconds of processes and everything below them, from /proc (Linux)."""

from __future__ import annotations

import os
from pathlib import Path

_TICK = 1 / os.sysconf("SC_CLK_TCK")


def cpu_of_tree(pid: int) -> float:
    """User and system seconds of `pid` and all processes below it, including those that ended and were reaped."""
    return sum(_cpu(one) for one in tree(pid))


def machine() -> str:
    """One line: processors, their name, memory, kernel."""
    names = [line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")]
    memory = next((int(line.split()[1]) for line in _lines("/proc/meminfo") if line.startswith("MemTotal")), 0)
    system = os.uname()
    name = names[0] if names else system.machine
    return f"{os.cpu_count()} × {name}, {memory / 2**20:.0f} GiB, {system.sysname} {system.release}"


def busy() -> float:
    """CPU seconds that all processes of the machine have used since it was started."""
    fields = [int(word) for word in _lines("/proc/stat")[0].split()[1:9]]
    user, nice, system, _idle, _iowait, irq, softirq, _steal = fields
    return (user + nice + system + irq + softirq) * _TICK


def _lines(path: str) -> list[str]:
    return Path(path).read_text(encoding="utf-8", errors="replace").splitlines()


def _stat(pid: int) -> list[str] | None:
    """The fields after the name, which may hold anything; None when the process is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return None


def _cpu(pid: int) -> float:
    fields = _stat(pid)
    return sum(int(word) for word in fields[11:15]) * _TICK if fields else 0.0


def tree(root: int) -> list[int]:
    """`root` and all processes below it."""
    children: dict[int, list[int]] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        if fields := _stat(int(folder.name)):
            children.setdefault(int(fields[1]), []).append(int(folder.name))
    found, waiting = [], [root]
    while waiting:
        pid = waiting.pop()
        found.append(pid)
        waiting += children.get(pid, [])
    return found


def memory_of_tree(root: int) -> float:
    """MiB that `root` and all processes below it hold now, shared pages counted in each."""
    pages = 0
    for pid in tree(root):
        try:
            pages += int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        except (OSError, IndexError):
            continue
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def open_files(pid: int) -> int:
    """Descriptors of this process; 0 when it is gone."""
    try:
        return len(os.listdir(f"/proc/{pid}/fd"))  # noqa: PTH208 - a count, no paths
    except OSError:
        return 0
