"""The end of a process that has used Temporal's SDK."""

from __future__ import annotations

import logging
import os
import sys


def leave(code: int) -> None:
    """End now, with everything written. Returns when the SDK was never loaded: then the usual end is safe.

    The SDK's threads may still run while Python takes itself apart, and then the process aborts or crashes after its
    work is done (seen with temporalio 1.35: `PyGILState_Release`, or a segmentation fault). Scripts read exit codes.
    """
    if "temporalio" not in sys.modules:
        return
    if "service.operation.tracing" in sys.modules:
        sys.modules["service.operation.tracing"].flush()
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:  # the reader of a pipe left
            continue
    os._exit(code)
