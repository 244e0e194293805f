"""`python -m bench.measure.adopted LOG COMMAND…`: run a controller and report the cost of all its processes.

Prints a JSON line with the command's process id, and at its end one with exit code, wall and CPU seconds. Processes
that the command leaves running, such as SSH masters, are counted up to then, and ended.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import sys
import time
from pathlib import Path

from bench.machines import PR_SET_CHILD_SUBREAPER
from bench.measure.usage import cpu_of_tree, tree


def main() -> None:
    """Become the parent of all processes of the command."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    log, *command = sys.argv[1:]
    own, begun = cpu_of_tree(os.getpid()), time.monotonic()
    work = os.fork()
    if work == 0:
        with Path(log).open("ab") as output:
            os.dup2(output.fileno(), 1)
            os.dup2(output.fileno(), 2)
        os.execvp(command[0], command)  # noqa: S606
    _say({"pid": work})
    code = -1
    while True:
        pid, status = os.wait()
        if pid == work:
            code = os.waitstatus_to_exitcode(status)
            break
    wall, cpu = time.monotonic() - begun, cpu_of_tree(os.getpid()) - own
    end_below(os.getpid())
    _say({"code": code, "wall": wall, "cpu": cpu})


def end_below(root: int) -> None:
    """Send SIGKILL to every process below this one, and wait for those of `root`."""
    while below := [pid for pid in tree(root) if pid != root]:
        for pid in below:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if root == os.getpid():
            with contextlib.suppress(ChildProcessError):
                os.wait()


def _say(line: object) -> None:
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
