"""Which folders may go."""

from __future__ import annotations

from model.cleanup import rows, unwanted
from model.run_folders import FleetFolders, Unwanted
from tests.model.test_rollback import V2, V23, A, B, C, folder, host

V1 = "1.19.5"


def test_what_a_rollback_needs_stays_and_the_rest_may_go() -> None:
    core = host("core", folder("core", A, V1, V2, image_pins=("k-a",)), folder("core", B, V2, V23, image_pins=("k-b",)))
    web = host(
        "web-1",
        folder("web-1", A, V1, V2),
        folder("web-1", B, V2, V23),
        folder("web-1", C, V23, in_place=False, state="restored"),
    )
    seen = FleetFolders(core=core, servers=(web, host("web-2", problem="no route")))
    found = rows(seen)
    assert [(r.name, r.change, bool(r.needed)) for r in found] == [
        ("core", A, False),
        ("core", B, True),
        ("web-1", A, False),
        ("web-1", B, True),
        ("web-1", C, False),
    ]
    assert unwanted(found) == (
        Unwanted(name="core", changes=(A,), image_pins=("k-a",)),
        Unwanted(name="web-1", changes=(A, C)),
    )
    assert [one.changes for one in unwanted(found, also_needed=True)] == [(A, B), (A, B, C)]
    assert [one.changes for one in unwanted(rows(seen, C))] == [(C,)]


def test_every_run_since_cores_upgrade_is_needed() -> None:
    """Stopped after the canary, gone on with later: both runs' folders lead back together with Core's."""
    twice = host("web-1", folder("web-1", A), folder("web-1", B, V23))
    found = rows(FleetFolders(core=host("core", folder("core", A)), servers=(twice,)))
    assert unwanted(found) == ()


def test_what_cannot_be_read_or_is_still_held_stays() -> None:
    seen = FleetFolders(
        core=host("core"),
        servers=(
            host("web-1", folder("web-1", A, problem="format 7")),
            host("web-2", folder("web-2", B, in_place=False), lock=f"prod {B}"),
        ),
    )
    assert unwanted(rows(seen)) == ()
