"""`discover` on a simulated fleet behind real SSH: from the API and from the database comes the same file."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from activities.fleet.discovery import Discovery, _agent
from activities.server.preflight import Machine
from hosts.ssh.pool import Hosts
from komodo.core.settings import agent_of, machine_of
from model.fleet.discovery import LARGEST_LIST, CoreServers, FindAgent, ListServers, Source
from model.fleet.file import parse
from model.fleet.merge import merged
from model.fleet.spec import AgentInstall, Connection, FleetSpec, HostSpec, SecretRef, ServerSpec
from sandbox.fleet import Sandbox
from sandbox.komodo_core.seed_documents import resource
from tests.activities.server_fleet import run

ODD = 'a "quoted" \\ name # [[x]]'
HOSTILE = "a\x1b[31m\n[[server]]"


@dataclass
class Found:
    """A simulated fleet, and the fleet file without servers with which it is discovered."""

    sandbox: Sandbox
    hosts: Hosts
    path: Path
    text: str

    @property
    def spec(self) -> FleetSpec:
        return parse(self.text, self.path)

    async def servers(self, source: Source, spec: FleetSpec | None = None) -> CoreServers:
        discovery = Discovery(self.hosts)
        return await run(discovery.list_servers, ListServers(fleet=spec or self.spec, source=source))

    async def discovered(self, source: Source, text: str = "") -> str:
        """As the command does it."""
        text, discovery = text or self.text, Discovery(self.hosts)
        core = await self.servers(source)
        assert core.listed, core.problem
        draft = merged(text, self.path, core, {})
        fleet = parse(draft.text, self.path)
        asks = (FindAgent(server=fleet.server(name)) for name in draft.to_survey)
        agents = await asyncio.gather(*(run(discovery.find_agent, ask) for ask in asks))
        return merged(text, self.path, core, {agent.name: agent for agent in agents}).text

    def add(self, addresses: dict[str, str]) -> None:
        """Servers of Core, by name; one whose name begins with `off` is disabled."""
        documents = [
            resource("Server", name, {"address": address, "enabled": not name.startswith("off")})
            for name, address in addresses.items()
        ]
        self.sandbox.store.insert("komodo", "Server", documents)
        assert self.sandbox.core is not None
        self.sandbox.core.tick()


@pytest.fixture
async def fleet(tmp_path: Path) -> AsyncIterator[Found]:
    start = Sandbox.start(tmp_path / "v1", servers=4, speed=10, containers={"nas": "own"})
    async with await start as sandbox, Hosts() as hosts:
        yield prepared(sandbox, hosts)


def prepared(sandbox: Sandbox, hosts: Hosts) -> Found:
    """Addresses of Servers have no SSH port, so that these come from an ssh config, as people have it."""
    config = "".join(f"Host {host.address}\n  Port {host.port}\n" for host in sandbox.hosts.values())
    (sandbox.folder / "ssh_config").write_text(config)
    text = f"""[fleet]
name = "sandbox"
target = "2.3.2"
[ssh]
user = "{sandbox.hosts["core"].user}"
key_files = ["id_ed25519"]
known_hosts = "known_hosts"
ssh_config = "ssh_config"
connect_timeout = "30s"
[core]
host = "{sandbox.hosts["core"].address}"
api_key_file = "secrets/api_key"
api_secret_file = "secrets/api_secret"
"""
    return Found(sandbox, hosts, sandbox.folder / "discovered.toml", text)


async def test_api_and_database_give_the_same_file_and_nothing_is_changed(fleet: Found) -> None:
    """All assertions on one fleet, because it is the most expensive step of these tests."""
    net = fleet.sandbox.world.net
    known = fleet.path.with_name("known_hosts")
    unknown = fleet.sandbox.hosts["build-1"]
    known.write_text("".join(line for line in known.read_text().splitlines(True) if unknown.address not in line))
    fleet.add(
        {ODD: f"https://{net}.98:8120", HOSTILE: f"https://{net}.97:8120", "off-1": "https://10.9.9.9:8120"}
        | {"UP": f"HTTPS://{net}.99:8120/", "six": f"https://[::ffff:{net}.96]:8120/", "next": "http://127.0.0.1:8121"}
        | {"broken": "https://no host:8120", "none": ""}
    )
    before = len(fleet.sandbox.mutations())
    text = await fleet.discovered(Source.API)
    assert await fleet.discovered(Source.DATABASE) == text
    assert fleet.sandbox.mutations()[before:] == []
    assert await fleet.discovered(Source.DATABASE, text) == text, "a second run changes nothing"

    servers = {server.name: server for server in parse(text, fleet.path).servers}
    assert {name: (s.host.address, s.install.value) for name, s in servers.items()} == {
        ODD: (f"{net}.98", "auto"),
        "UP": (f"{net}.99", "auto"),
        "build-1": (unknown.address, "auto"),
        "db-1": (fleet.sandbox.hosts["db-1"].address, "auto"),
        "nas": (fleet.sandbox.hosts["nas"].address, "container"),
        "next": (fleet.sandbox.hosts["core"].address, "auto"),
        "six": (f"::ffff:{net}.96", "auto"),
        "web-1": (fleet.sandbox.hosts["web-1"].address, "systemd"),
    }
    assert {s.connection for s in servers.values()} == {Connection.INBOUND}
    notes = [line for line in text.splitlines() if line.startswith("# discover:")]
    said = "\n".join(notes)
    assert f"the host key of [{unknown.address}]:{unknown.port} is in no known_hosts file" in said
    assert f"ssh-keyscan -p {unknown.port} -t ed25519 {unknown.address}" in said, "the command for an unknown host key"
    assert "not surveyed: sudo wants a password" in said
    assert "disabled in Komodo, and not in this file: off-1" in said
    assert "upgraded with Core, because its agent is part of Core's project: Local" in said
    assert "broken is not in this file: its address https://no host:8120 names no host" in said
    assert "none is not in this file: Komodo has no address of it" in said
    assert "a\\x1b[31m\\n[[server]] is not in this file" in said
    assert all(line.isprintable() for line in text.split("\n"))
    assert not [secret for secret in fleet.sandbox.secrets if secret in text]


async def test_agents_that_connect_by_themselves(tmp_path: Path) -> None:
    """v2 lists no address for them."""
    async with (
        await Sandbox.start(
            tmp_path / "v2",
            servers=2,
            speed=10,
            core_version="2.0.0",
            agent_version="2.0.0",
            files="v2",
            outbound=("db-1",),
        ) as sandbox,
        Hosts() as hosts,
    ):
        fleet = prepared(sandbox, hosts)
        text = await fleet.discovered(Source.API)
        assert await fleet.discovered(Source.DATABASE) == text
    [server] = parse(text, fleet.path).servers
    assert (server.name, server.connection) == ("web-1", Connection.INBOUND)
    assert '# discover: name = "db-1"\n# discover: host = ""\n# discover: connection = "outbound"' in text


async def test_what_cannot_be_read_is_reported(fleet: Found) -> None:
    url = fleet.spec.core
    lost = replace(url.host, address=f"{fleet.sandbox.world.net}.90")
    without_host = replace(fleet.spec, core=replace(url, host=lost))
    found = await fleet.servers(Source.DATABASE, without_host)
    assert (found.listed, found.servers) == (False, ())
    assert "no SSH connection" in found.problem

    with_url = replace(without_host, core=replace(without_host.core, url=f"http://{url.host.address}:9120"))
    seen = await fleet.servers(Source.API, with_url)
    assert seen.listed, "Core's API needs no SSH"
    assert "no SSH connection" in seen.problem
    assert "web-1" in [server.name for server in seen.servers]

    fleet.path.with_name("wrong").write_text("S-not-the-secret")
    wrong = replace(fleet.spec, core=replace(url, api_secret=SecretRef(file=str(fleet.path.with_name("wrong")))))
    refused = await fleet.servers(Source.API, wrong)
    assert not refused.listed
    assert "credentials" in refused.problem

    fleet.path.with_name("wrong").write_text("S-two-\nlines")
    unusable = await fleet.servers(Source.API, wrong)
    assert "cannot be sent" in unusable.problem
    assert "lines" not in unusable.problem

    named = replace(fleet.spec, core=replace(url, container="nothing"))
    assert "there is no container 'nothing'" in (await fleet.servers(Source.DATABASE, named)).problem


async def test_a_list_that_is_too_large_is_refused(fleet: Found) -> None:
    fleet.add({f"s-{number}": "https://" + "a" * (LARGEST_LIST // 16) for number in range(9)})
    for source in Source:
        found = await fleet.servers(source)
        assert not found.listed
        assert "larger than 1 MiB" in found.problem


def machine(*users: str) -> Machine:
    return Machine({"user_unit": [f"{user}\t/home/{user}/x" for user in users]}, clock_ahead=None, agent=None)  # type: ignore[arg-type]


def test_units_of_users_are_found() -> None:
    server = ServerSpec(name="web-1", host=HostSpec(name="web-1", address="h"))
    found = _agent(server, machine("komodo"))
    assert (found.install, found.user, found.problem) == (AgentInstall.SYSTEMD_USER, "komodo", "")
    assert "several users have a periphery.service: ann, bob" in _agent(server, machine("ann", "bob")).problem
    assert "no agent of Komodo was found" in _agent(server, machine()).problem


@pytest.mark.parametrize(
    ("address", "host"),
    [
        ("https://web-1:8120", "web-1"),
        ("https://WEB-1.Example.net:8120/", "web-1.example.net"),
        ("10.0.0.5", "10.0.0.5"),
        ("10.0.0.5:8120", "10.0.0.5"),
        ("https://[FD00::5]:8120/", "fd00::5"),
        ("[fd00::5]:8120", "fd00::5"),
        ("fd00::5", "fd00::5"),
        ("https://user:secret@web-1:8120", "web-1"),
        ("https://web-1:port", "web-1"),
        ("https://[::1", ""),
        ("https://", ""),
        ("", ""),
    ],
)
def test_the_machine_of_an_address(address: str, host: str) -> None:
    assert machine_of(address) == host
    agent_of(address)  # no address ends it
