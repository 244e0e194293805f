"""The edits planned for Core's files, on the official files of every tag, and the coverage of Servers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from activities.core.backup import guide_suffix, plain_names
from activities.core.coverage import coverage_findings, find_agent_server, servers_on_core_host
from activities.core.files import edit_core_project, interpolation_file, staged_name
from komodo.core.containers import parse_containers
from komodo.files.edit_set import ProjectEdit, ProjectFiles
from model.errors import EditRefused
from model.facts import ComposeProject, KnownServer, Severity
from model.fleet.spec import CoreSpec, FleetSpec, HostSpec, ServerSpec
from tests.komodo.inspected import official, text

HOST = HostSpec(name="core", address="core")
PROJECT = ComposeProject(
    name="komodo",
    directory="/opt/komodo",
    files=("/opt/komodo/mongo.compose.yaml",),
    env_file="/opt/komodo/compose.env",
)
COMPOSE = """services:
  mongo:
    image: mongo
  core:
    image: ghcr.io/moghtech/komodo-core:${TAG:-latest}
    env_file: [./compose.env, {path: core.env, required: false}]
    ports: [9120:9120]
  periphery:
    image: ghcr.io/moghtech/komodo-periphery:${TAG:-latest}
    env_file: ./compose.env
"""


def edit(compose: dict[str, str], envs: dict[str, str], *, pinned: bool = False) -> ProjectEdit:
    files = ProjectFiles(directory=PROJECT.directory, compose=compose, envs=envs, fills=(PROJECT.env_file,))
    return edit_core_project(files, target="2.3.2", keys_mount="bind", pinned=pinned)


@pytest.mark.official("v1-core")
def test_official_files(official_file: Path) -> None:
    """Planned once: both services at the target, the pin on top; planned again on the results: nothing."""
    compose = official_file.read_text()
    env = (official_file.parent / "compose.env").read_text()
    path = PROJECT.files[0]
    edits = edit({path: compose}, {PROJECT.env_file: env})
    planned = edits.planned()
    assert edits.images == {
        "core": "ghcr.io/moghtech/komodo-core:2.3.2",
        "periphery": "ghcr.io/moghtech/komodo-periphery:2.3.2",
    }
    assert edits.keys_dir == "/opt/komodo/keys"
    assert [p.with_key for p in planned] == [False, False, True]
    assert planned[2].base_sha256 == planned[0].result_sha256
    done = {e.path: e.after for e in edits.files}
    again = edit({path: done[path]}, {PROJECT.env_file: done[PROJECT.env_file]}, pinned=True)
    assert again.planned() == ()


def test_env_files_of_a_service() -> None:
    files = ProjectFiles(directory=PROJECT.directory, compose={PROJECT.files[0]: COMPOSE})
    assert files.env_files("core") == ("/opt/komodo/compose.env", "/opt/komodo/core.env")
    assert files.env_files("mongo") == ()
    assert replace(files, compose={PROJECT.files[0]: "a: ["}).env_files("core") == ()
    assert interpolation_file(replace(PROJECT, env_file="")) == "/opt/komodo/.env"


def test_tag_and_first_server_in_different_env_files() -> None:
    envs = {
        "/opt/komodo/compose.env": "TAG=latest\nKOMODO_PASSKEY=secret-one\n",
        "/opt/komodo/core.env": "TAG=left-alone\nKOMODO_FIRST_SERVER=https://x:8120\n",
    }
    edits = edit({PROJECT.files[0]: COMPOSE}, envs)
    after = {e.path: e.after for e in edits.files}
    assert "TAG=2.3.2\n" in after["/opt/komodo/compose.env"]
    assert after["/opt/komodo/core.env"] == "TAG=left-alone\n# KOMODO_FIRST_SERVER=https://x:8120\n"
    assert edits.first_server_gone == ("KOMODO_FIRST_SERVER",)
    assert "secret-one" not in repr(edits.planned())


def test_core_in_two_files_or_in_none_is_refused() -> None:
    for texts in ({"/a.yaml": COMPOSE, "/b.yaml": COMPOSE}, {"/a.yaml": "services: {}\n", "/b.yaml": "services: {}\n"}):
        with pytest.raises(EditRefused):
            edit(texts, {})


def test_names() -> None:
    assert plain_names(["/a/x.env", "/b/x.env", "/x.env"]) == {
        "/a/x.env": "x.env", "/b/x.env": "b-x.env", "/x.env": "_x.env",
    }  # fmt: skip
    assert staged_name("/a/x.env") != staged_name("/b/x.env")
    assert (guide_suffix("1.19.5"), guide_suffix("2.0.0")) == (".bak_v1", ".bak_v2.0.0")


# --- coverage ---------------------------------------------------------------------------------------------------------


def fleet(*names: str, leave_behind: tuple[str, ...] = ()) -> FleetSpec:
    return FleetSpec(
        name="f",
        target="2.3.2",
        core=CoreSpec(host=HOST),
        servers=tuple(ServerSpec(name=n, host=HOST) for n in names),
        leave_behind=leave_behind,
    )


def known(name: str, address: str = "", *, enabled: bool = True, state: str = "Ok", version: str = "") -> KnownServer:
    where = address or f"https://{name}:8120"
    return KnownServer(name=name, id=name, address=where, enabled=enabled, state=state, version=version)


def verdicts(spec: FleetSpec, *servers: KnownServer, agent: str = "") -> dict[str, Severity]:
    return {f"{f.code} {f.subject}": f.severity for f in coverage_findings(spec, servers, agent)}


def test_every_enabled_server_has_to_be_covered() -> None:
    local = known("Local", "https://periphery:8120")
    servers = (known("a"), known("nas"), known("off", enabled=False), known("done", version="2.3.2"), local)
    assert verdicts(fleet("a"), *servers, agent="Local") == {"server-not-covered nas": Severity.REFUSE}
    assert verdicts(fleet("a", leave_behind=("nas",)), *servers, agent="Local") == {}


def test_names_of_the_fleet_file_must_be_servers() -> None:
    findings = coverage_findings(fleet("web1", "off"), (known("web-1"), known("off", enabled=False)), "")
    assert [f.text for f in findings if f.code == "server-unknown"] == [
        "Core knows no Server named web1 (did you mean web-1?)"
    ]
    assert "server-disabled" in {f.code for f in findings}


def test_addresses_and_shared_agents() -> None:
    servers = (known("a", "https://A.lan:8120"), known("b", "https://x:8120"), known("c", "https://X:8120/"))
    found = verdicts(fleet("a", "b", "c"), *servers)
    assert {"address a", "address c", "two-servers-one-agent b"} == set(found)
    stays = verdicts(fleet("b", leave_behind=("a", "c")), *servers)
    assert stays == {}


@pytest.mark.parametrize(
    ("address", "version", "warned"),
    [
        ("https://agent.lan", "1.19.5", True),
        ("http://agent.lan/komodo", "1.19.5", True),
        ("https://agent.lan", "", True),
        ("https://agent.lan", "2.3.1", False),
        ("https://agent.lan:8120", "1.19.5", False),
        ("https://agent.lan:8443", "1.19.5", False),
    ],
)
def test_an_agent_on_a_web_port_may_be_behind_a_proxy(address: str, version: str, warned: bool) -> None:
    found = verdicts(fleet("a"), known("a", address, version=version))
    assert found == ({"behind-proxy a": Severity.WARN} if warned else {})


def test_the_agent_of_cores_project_is_not_named_a_second_time() -> None:
    local = known("Local", "https://periphery:8120")
    assert verdicts(fleet("Local"), local, agent="Local") == {"agent-twice Local": Severity.REFUSE}
    assert verdicts(fleet("Local"), local) == {}


def test_servers_that_limit_leaves_out_are_covered_by_name() -> None:
    servers = (known("a"), known("b", "https://B.lan:8120/"), known("c"))
    limited = replace(fleet("a", "b", "misspelt"), not_in_run=("b", "misspelt"))
    assert verdicts(limited, *servers) == {"server-not-covered c": Severity.REFUSE}


def test_servers_on_cores_host_are_found_by_their_address() -> None:
    containers = parse_containers(text(official()))
    core = next(c for c in containers if c.kind == "core")
    servers = (
        known("by-name", "https://periphery:8120"),
        known("by-host", "http://host.docker.internal:8120"),
        known("database", "https://mongo:8120"),
        known("other", "https://10.0.0.1:8120"),
        known("none", "https://[::1"),
    )
    assert servers_on_core_host(servers, containers, core) == ("by-name", "by-host")


def test_the_agent_in_cores_project() -> None:
    agent = next(c for c in parse_containers(text(official())) if c.kind == "periphery")
    servers = (known("a", "https://10.0.0.1:8120"), known("Local", "https://periphery:8120"))
    assert find_agent_server(servers, agent) == "Local"
    assert find_agent_server(servers[:1], agent) == ""
    assert find_agent_server(servers, None) == ""
    assert "agent-twice Local" in verdicts(fleet("a", "Local"), *servers, agent="Local")
