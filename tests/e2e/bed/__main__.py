"""`python -m tests.e2e.bed ready|build|up|down [SERVERS]`: control the test bed. `ready` only prepares the machine."""

from __future__ import annotations

import sys

from tests.e2e.bed import ground
from tests.e2e.bed.bed import Bed
from tests.e2e.bed.settings import Missing, cache, machines, switch


def main(words: list[str]) -> int:
    """Run the command. Exit code 2: this machine lacks what the message names."""
    what, count = (words or [""])[0], int(words[1]) if len(words) > 1 else 6
    try:
        if what == "down":
            Bed(servers=machines(count), switch=switch(), key="").down()
        elif what == "ready":
            ground.prepare()
        elif what in ("up", "build"):
            bed = Bed.build(count)
            if what == "up":
                bed.up()
                print(bed.write_access(cache() / "access"))
        else:
            print(__doc__, file=sys.stderr)
            return 2
    except Missing as error:
        print(f"e2e bed: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
