"""A table of when each activity began and ended, from Temporal's histories.

`python -m tests.e2e.timeline ADDRESS [ZERO]` prints the table; second 0 is the end of the first activity named ZERO.
"""

from __future__ import annotations

import argparse
import asyncio
import sys

from temporalio.client import Client

from bench.measure.spans import Span, spans
from service.payloads import data_converter


async def read(address: str) -> list[Span]:
    """The activities of all workflows of the server at this address."""
    return await spans(await Client.connect(address, data_converter=data_converter))


def table(found: list[Span], zero: str = "stop_core") -> list[str]:
    """One line per activity: scheduled, begun and ended, in seconds after the end of `zero`."""
    at = next((span.ended for span in found if span.name == zero), found[0].scheduled if found else 0.0)
    return [
        f"{s.scheduled - at:8.2f} {s.started - at:8.2f} {s.ended - at:8.2f} {s.ended - s.started:6.2f}  "
        f"{s.name:22} {s.workflow.rpartition('/')[0][-20:]}"
        for s in found
    ]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("address")
    parser.add_argument("zero", nargs="?", default="stop_core")
    options = parser.parse_args()
    sys.stdout.write("\n".join(table(asyncio.run(read(options.address)), options.zero)) + "\n")


if __name__ == "__main__":
    main()
