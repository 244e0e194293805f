"""`discover` with real sshd, systemd, Docker and database: both sources give the same file, and nothing is changed."""

from __future__ import annotations

import time

import pytest

from model.fleet.file import load
from tests.e2e import proofs
from tests.e2e.bed.bed import Bed
from tests.e2e.operator import Operator

pytestmark = pytest.mark.e2e_all


def test_discover_gives_the_same_file_by_api_and_by_ssh(bed: Bed, ann: Operator, note: list[str]) -> None:
    """Two servers want a password for sudo, one is behind a jump host: they get a note."""
    text = ann.fleet_file.read_text().partition("[[server]]")[0].replace("[ssh]", '[ssh]\nconnect_timeout = "5s"')
    before = (bed.configs(), proofs.core_files(bed))
    began = time.monotonic()
    for source in ("api", "database"):
        (ann.folder / f"{source}.toml").write_text(text)
        ann.ok("discover", f"{source}.toml", "--from", source, "--yes")
    took = (time.monotonic() - began) / 2
    written = (ann.folder / "api.toml").read_text()
    assert written == (ann.folder / "database.toml").read_text()
    assert written.startswith(text.rstrip())
    found = {server.name: server for server in load(ann.folder / "api.toml").servers}
    assert {name: server.host.address for name, server in found.items()} == {s.name: s.address for s in bed.servers}
    open_to_us = [s.name for s in bed.servers if not s.sudo_password and not s.jump]
    assert {name for name, server in found.items() if server.install == "systemd"} == set(open_to_us)
    assert written.count("# discover: not surveyed: ") == len(bed.servers) - len(open_to_us)
    assert (bed.configs(), proofs.core_files(bed)) == before
    note.append(f"{len(found)} servers discovered in {took:.0f} s")
