"""A rollback works with the run folders of earlier releases: files, agents, Core and its database."""

from __future__ import annotations

import dataclasses
import hashlib
import platform
import re
import shlex
import shutil
from pathlib import Path

import pytest

from model.fleet.spec import TASK_QUEUE, workflow_id
from model.rollback import request_from_folders
from model.status import FleetResult, FleetState
from sandbox import keys, releases
from sandbox.fleet import Sandbox
from service.requests import folders
from tests.fleet.conftest import Fleet
from tests.fleet.test_rollback import as_root, core_and_agents_are_old, documents, files

RELEASED = Path(__file__).parent / "folders-0.1.0"
CHANGE = "20261123T220000Z"

# The commands of the upgrade that put images and containers into the state that the folders describe.
UPGRADE_CORE = """
set -e
for kind in core:core periphery:agent; do
  image=ghcr.io/moghtech/komodo-${kind%:*} pin=komodo-upgrade-keep-20261123t220000z-${kind#*:}
  docker pull "$image:2.3.2"
  docker create --name "$pin-old" "$(docker inspect --format '{{.Image}}' "komodo-${kind%:*}-1")"
  docker create --name "$pin-new" "$image:2.3.2"
done
"""
START_CORE = "docker compose -p komodo -f mongo.compose.yaml --env-file compose.env up -d"


@pytest.mark.parametrize("fleet", [2], indirect=True)
async def test_folders_of_0_1_0_are_rolled_back(fleet: Fleet) -> None:
    before = files(fleet)
    await as_upgraded(fleet)
    assert {name: fleet.sandbox.agent_version(name) for name in ("web-1", "db-1")} == {
        "web-1": "2.3.2",
        "db-1": "2.3.2",
    }
    assert files(fleet) != before
    await fleet.worker()

    seen = await folders(fleet.client, fleet.spec)
    found = {
        host.name: [(c.change, c.in_place, c.problem) for c in host.changes] for host in (seen.core, *seen.servers)
    }
    assert found == {name: [(CHANGE, True, "")] for name in ("core", "web-1", "db-1")}
    request = request_from_folders(fleet.spec, seen, requested_by="bob")
    assert (request.servers, request.core, request.not_restored) == (("web-1", "db-1", "Local"), True, ())
    assert request.dump is not None
    await fleet.client.start_workflow(
        "RollbackFleet", request, id=workflow_id(fleet.spec.name), task_queue=TASK_QUEUE, result_type=FleetResult
    )
    result = await fleet.approve_all()

    assert result.state is FleetState.ROLLED_BACK, result.detail
    assert [s.state for s in result.servers] == ["rolled back"] * 3
    assert files(fleet) == before
    core_and_agents_are_old(fleet)
    # Only the dump in the folder holds these addresses.
    servers = fleet.sandbox.store.find("komodo", "Server")
    assert sorted(s["config"]["address"] for s in servers) == [
        "https://db-1:8120", "https://periphery:8120", "https://web-1:8120",
    ]  # fmt: skip
    assert not [name for name in ("OnboardingKey", "Swarm") if name in documents(fleet)]
    after = await folders(fleet.client, fleet.spec)
    assert not [c for host in (after.core, *after.servers) for c in host.changes if c.in_place]


async def as_upgraded(fleet: Fleet) -> None:
    """Bring the fleet into the state that the release left behind."""
    core = fleet.sandbox.hosts["core"].root
    public_key, _ = keys.ensure_pair(core / "opt/komodo/keys/core.key")
    await as_root(fleet, "core", f"sh -c {shlex.quote(UPGRADE_CORE)}")
    install(fleet.sandbox, public_key)
    shutil.copy(core / "opt/komodo/keys/core.key", run_folder(core) / "core.key")
    await as_root(fleet, "core", START_CORE, folder="opt/komodo")
    for name in ("web-1", "db-1"):
        root = fleet.sandbox.hosts[name].root
        binary = root / "usr/local/bin/periphery"
        binary.write_bytes(releases.binary("2.3.2", platform.machine()))
        await as_root(fleet, name, "systemctl restart periphery")


def install(sandbox: Sandbox, public_key: str) -> None:
    """Write the released files, with the values of this sandbox and the digests that follow from them."""
    own = sandbox.own_secrets
    values = {field.name: getattr(own, field.name) for field in dataclasses.fields(own)}
    values |= {"root": str(sandbox.folder), "net": sandbox.world.net, "core_public_key": public_key}
    targets = {
        path: place(sandbox, path) for path in sorted(RELEASED.rglob("*")) if len(path.parts) > 1 + len(RELEASED.parts)
    }
    for path, target in targets.items():
        if path.is_file():
            target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            shutil.copyfile(path, target)
            target.chmod(0o700 if path.suffix == ".sh" else 0o600)
            if path.suffix not in {".gz", ".sh"}:
                target.write_text(re.sub(r"\{(\w+)\}", lambda m: values.get(m[1], m[0]), target.read_text()))
    for name in ("web-1", "db-1"):
        root = sandbox.hosts[name].root
        shutil.copy(root / "usr/local/bin/periphery", run_folder(root) / "files/periphery")
    for target in targets.values():
        if target.suffix in {".json", ".list"} or target.name == "out":
            target.write_text(re.sub(r"\{sha256 of (.*?)\}", lambda m: digest(sandbox, m[1]), target.read_text()))


def place(sandbox: Sandbox, path: Path) -> Path:
    """Where a released file belongs."""
    host, *rest = path.relative_to(RELEASED).parts
    root = sandbox.hosts[host].root
    return run_folder(root).joinpath(*rest[1:]) if rest[0] == "run-folder" else root.joinpath(*rest)


def run_folder(root: Path) -> Path:
    return root / "var/lib/komodo-upgrade/sandbox" / CHANGE


def digest(sandbox: Sandbox, name: str) -> str:
    return hashlib.sha256(place(sandbox, RELEASED / name).read_bytes()).hexdigest()
