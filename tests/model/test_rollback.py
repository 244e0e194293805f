"""Which folder leads back, where an upgrade took several runs, hosts do not answer, or a person was faster."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from model.errors import HostError, NoSuchUpgrade
from model.facts import (
    Backup,
    CollectionCount,
    ComposeProject,
    CoreFacts,
    DumpFacts,
    DumpLabel,
    ServerFacts,
    ServiceFacts,
)
from model.fleet.spec import CoreSpec, FleetSpec, HostSpec, ServerSpec
from model.rollback import request_from_folders
from model.run_folders import FleetFolders, HostFolders, SavedChange
from model.status import RollbackRequest

A, B, C = "20260101T000000Z", "20260201T000000Z", "20260301T000000Z"
NOW = datetime(2026, 11, 23, tzinfo=UTC)
V1, V2, V23 = "1.19.5", "2.0.0", "2.3.2"


def fleet(*names: str) -> FleetSpec:
    servers = tuple(ServerSpec(name=n, host=HostSpec(name=n, address=n)) for n in names)
    return FleetSpec(name="prod", target=V23, core=CoreSpec(host=HostSpec(name="core", address="c")), servers=servers)


def folder(name: str, change: str, old: str = V1, new: str = V23, **fields: Any) -> SavedChange:
    path = f"/var/lib/komodo-upgrade/prod/{change}"
    backup = Backup(host=name, folder=path, files=(), restore_command=f"sh {path}/restore.sh", taken_at=NOW)
    base = SavedChange(
        change=change, folder=path, name=name, version=old, target=new, in_place=True, state="in place", backup=backup
    )
    if name == "core":
        service = ServiceFacts(service="core", container="komodo-core-1", image="i", image_id="sha256:1")
        dump = DumpFacts(
            label=DumpLabel.FINAL,
            path=f"{path}/dumps/final.archive.gz",
            bytes=10,
            sha256="d",
            collections=(CollectionCount(name="Server", documents=3),),
            taken_at=NOW,
            seconds=2.0,
        )
        project = ComposeProject(name="komodo", directory="/opt/komodo", files=())
        agent = replace(service, service="periphery", version=old)
        facts = CoreFacts(reachable=True, version=old, core=service, agent=agent, agent_server="Local", project=project)
        base = replace(base, core=facts, dump=dump)
    else:
        base = replace(base, server=ServerFacts(name=name, version=old))
    return replace(base, **fields)


def host(name: str, *changes: SavedChange, **fields: Any) -> HostFolders:
    return HostFolders(name=name, changes=changes, **fields)


def asked(core: HostFolders, *servers: HostFolders, **fields: Any) -> RollbackRequest:
    spec = fleet(*(one.name for one in servers))
    return request_from_folders(spec, FleetFolders(core=core, servers=servers), **fields)


def test_no_server_is_restored_from_the_folder_of_another_one() -> None:
    """A folder without a backup moved the folders of all later servers one place up."""
    names = ("web-1", "web-2", "web-3")
    hosts = [host(name, folder(name, A)) for name in names]
    hosts[0] = host("web-1", folder("web-1", A, backup=None))
    request = asked(host("core", folder("core", A)), *hosts)
    assert {name: backup.host for name, backup in request.backups_by_server().items()} == {
        "web-2": "web-2", "web-3": "web-3",
    }  # fmt: skip
    assert [(one.name, one.why[:31]) for one in request.not_restored] == [("web-1", "its run folder lists no backup;")]
    with pytest.raises(HostError, match="lists no backup"):
        asked(host("core", folder("core", A)), *hosts, only=("web-1",))
    for wrong in ({"backups": request.backups[1:]}, {"changes": (A,)}, {"servers": names}):
        assert not replace(request, **wrong).backups_by_server()


def test_one_run_goes_back_whole() -> None:
    core = folder("core", A, attempt=3, agent_switched=True, image_pins=("k",))
    request = asked(host("core", core), host("web-1", folder("web-1", A)), host("web-2", folder("web-2", A)))
    assert (request.change, request.servers, request.changes) == (A, ("web-1", "web-2", "Local"), (A, A, A))
    assert (request.core, request.dump, request.image_pins) == (True, core.dump, ("k",))
    assert request.fleet.server("Local").host == request.fleet.core.host
    assert request.backups[-1].restore_command.endswith("restore.sh agent")
    assert (request.attempt, request.fleet.target, request.plan.core.version) == (4, V23, V1)
    assert [b.folder for b in request.backups] == [f"/var/lib/komodo-upgrade/prod/{A}"] * 3
    assert len(request.plan.digest) == 16
    assert request.not_restored == ()


def test_servers_of_a_later_run_go_back_with_core() -> None:
    """Stopped after the canary, gone on with the next day."""
    request = asked(
        host("core", folder("core", A)), host("web-1", folder("web-1", A)), host("web-2", folder("web-2", B))
    )
    assert (request.change, request.changes) == (A, (A, B))
    assert [request.change_of(n) for n in ("core", "web-1", "web-2")] == [A, A, B]


def test_a_server_that_was_switched_twice_goes_back_to_before_core() -> None:
    twice = host("web-1", folder("web-1", A), folder("web-1", B, V23))
    assert asked(host("core", folder("core", A)), twice).changes == (A,)
    # Alone: not to where it is anyway.
    assert asked(host("core", folder("core", A)), twice, only=("web-1",)).changes == (A,)


def test_the_newer_of_two_upgrades_goes_back_first() -> None:
    core = host("core", folder("core", A, V1, V2), folder("core", B, V2, V23))
    both = host("web-1", folder("web-1", A, V1, V2), folder("web-1", B, V2, V23))
    old = host("web-2", folder("web-2", A, V1, V2), running=V2)
    request = asked(core, both, old)
    assert (request.change, request.changes, request.servers) == (B, (B,), ("web-1",))
    assert [(one.name, one.harmless) for one in request.not_restored] == [("web-2", True)]
    first = asked(core, both, old, change=A)
    assert (first.change, first.servers, first.plan.core.version) == (A, ("web-1", "web-2"), V1)
    assert asked(core, both, old, only=("web-1",)).changes == (B,)


def test_a_restored_server_stays_and_one_without_a_folder_is_reported() -> None:
    request = asked(
        host("core", folder("core", A)),
        host("web-1", folder("web-1", A, in_place=False, state="restored"), running=V1),
        host("web-2", running=V23),
        host("web-3", problem="no route to host"),
        host("web-4", folder("web-4", A, problem="manifest.json has format 7")),
    )
    assert request.servers == ()
    assert [(one.name, one.harmless) for one in request.not_restored] == [
        ("web-1", True),
        ("web-2", False),
        ("web-3", False),
        ("web-4", False),
    ]
    reported = {one.name: one.why for one in request.not_restored}
    assert "runs 2.3.2, and no folder of this upgrade is there: unreachable from Core 1.19.5" in reported["web-2"]
    assert "no route to host" in reported["web-3"]
    assert "format 7" in reported["web-4"]


def test_servers_follow_a_core_that_is_back_already() -> None:
    core = host("core", folder("core", A, in_place=False))
    request = asked(core, host("web-1", folder("web-1", A)))
    assert (request.core, request.core_is_back, request.servers, request.dump) == (False, True, ("web-1",), None)
    assert request.plan.core.version == V1
    alone = asked(host("core", folder("core", A)), host("web-1", folder("web-1", A)), only=("web-1",))
    assert (alone.core, alone.core_is_back) == (False, False)


@pytest.mark.parametrize(
    ("core", "server", "only", "kind", "words"),
    [
        (host("core"), host("web-1"), (), NoSuchUpgrade, "nothing to roll back"),
        (host("core", problem="no route"), host("web-1", folder("web-1", A)), (), HostError, "Core's host cannot"),
        (host("core", folder("core", A, problem="format 7")), host("web-1"), (), HostError, "format 7"),
        (host("core"), host("web-1", problem="no route"), ("web-1",), HostError, "no route"),
        (host("core"), host("web-1", folder("web-1", A, problem="damaged")), ("web-1",), HostError, "damaged"),
        (host("core"), host("web-1", folder("web-1", A, in_place=False)), ("web-1",), NoSuchUpgrade, "nothing is in"),
    ],
)
def test_what_cannot_be_is_said(
    core: HostFolders, server: HostFolders, only: tuple[str, ...], kind: type[Exception], words: str
) -> None:
    with pytest.raises(kind, match=words):
        asked(core, server, only=only)


def test_a_change_that_is_not_in_place_is_refused() -> None:
    with pytest.raises(NoSuchUpgrade):
        asked(host("core", folder("core", A)), host("web-1", folder("web-1", A)), change=C)
