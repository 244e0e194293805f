"""What a fleet may use on the worker's machine is decided there."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path

import asyncssh
import pytest

from activities.fleet.notices import Notices
from hosts import policy as hosts_policy
from hosts.policy import Policy, install
from hosts.secrets import resolve
from hosts.ssh.connection import find_route, jump_spec
from hosts.ssh.keys import KeyRing
from hosts.ssh.pool import Hosts
from model import worker_policy
from model.errors import PolicyRefused
from model.fleet.spec import CoreSpec, Event, FleetSpec, HostSpec, Notify, SecretRef, ServerSpec
from model.steps import Notice
from model.worker_policy import NO_COMMANDS, WorkerPolicy, hops, parse, references, render
from service import policy


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    yield
    install(Policy())


def _install(tmp_path: Path, text: str) -> Path:
    tmp_path.chmod(0o700)
    path = tmp_path / "worker.toml"
    path.write_text(text)
    path.chmod(0o600)
    install(Policy(file=path))
    return path


async def test_a_command_that_is_not_listed_is_not_run(tmp_path: Path) -> None:
    _install(tmp_path, 'commands = ["echo allowed"]')
    assert await resolve(SecretRef(command="echo allowed")) == "allowed"
    mark = tmp_path / "mark"
    for command in (f"touch {mark}; echo x", "echo allowed; id", "echo allowed "):
        with pytest.raises(PolicyRefused, match="does not allow the command"):
            await resolve(SecretRef(command=command))
    notify = Notify(command=f"touch {mark}", urls=SecretRef(command=f"touch {mark}"))
    done = await Notices(Hosts()).notify(Notice(fleet="p", event=Event.GATE, subject="s", text="t", notify=notify))
    assert "was not run" in done.facts[0]
    assert "does not allow the command" in done.facts[1]
    assert not mark.exists()


async def test_files_variables_and_keys_are_listed_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "keys").mkdir()
    (tmp_path / "keys" / "one").write_text("x")
    (tmp_path / "other").write_text("x")
    monkeypatch.setenv("OTHER_SECRET", "x")
    _install(tmp_path, f'files = ["{tmp_path}/keys/*"]\nvariables = ["KOMODO_*"]')
    assert await resolve(SecretRef(file=str(tmp_path / "keys" / "one"))) == "x"
    for name in (tmp_path / "other", f"{tmp_path}/keys/../other", "/etc/shadow"):
        with pytest.raises(PolicyRefused):
            await resolve(SecretRef(file=str(name)))
        with pytest.raises(PolicyRefused):
            await KeyRing().login(HostSpec(name="a", address="a", key_files=(str(name),)))
    with pytest.raises(PolicyRefused):
        await resolve(SecretRef(env="OTHER_SECRET"))


@pytest.mark.parametrize(
    "spec",
    [
        HostSpec(name="a", address="evil.example"),
        HostSpec(name="a", address="web-1.example.net", jump="ops@evil.example:22"),
        HostSpec(name="a", address="web-1.example.net", jump="web-2.example.net/@evil.host"),
        HostSpec(name="a", address="web-1.example.net", jump="web-2.example.net#@evil.host:22,web-3.example.net"),
        HostSpec(name="a", address="web-1.example.net", jump="web-2.example.net,none"),
        HostSpec(name="a", address="web-1.example.net", jump="web-2.example.net,"),
        HostSpec(name="a", address="web-1.example.net", ssh_config="/tmp/with-a-proxy-command"),
        HostSpec(name="a", address="web-1.example.net", known_hosts="/tmp/known"),
        HostSpec(name="a", address="10.1.0.1"),
    ],
)
async def test_hosts_and_what_leads_there(tmp_path: Path, spec: HostSpec) -> None:
    _install(tmp_path, 'hosts = ["*.example.net", "10.0.0.0/16"]')
    with pytest.raises(PolicyRefused):
        await Hosts().get(spec)
    hosts_policy.check_host(HostSpec(name="a", address="10.0.3.4", jump="ops@Bastion.example.net"))


@pytest.mark.parametrize("jump", ["allowed.example/@evil.host", "u@[::1]:22", "ssh://u@b:2", "a/b@c#d", "none,b", "a,"])
def test_the_jump_hosts_that_are_checked_are_those_that_are_connected_to(jump: str) -> None:
    spec = HostSpec(name="a", address="a.example", jump=jump, ssh_config="none")
    reached, route = [], find_route(spec)
    while route.jump:
        *before, last = route.jump.split(",")
        spec = jump_spec(route, last, ",".join(before))
        reached.append(spec.address)
        route = find_route(spec)
    assert {*reached} <= {*hops(jump)}


async def test_the_file_that_is_opened_is_the_one_that_was_checked(tmp_path: Path) -> None:
    """`link/../secret` is `secret` for the text, and `elsewhere/secret` for the system."""
    for name in ("allowed", "elsewhere/below"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "allowed" / "link").symlink_to(tmp_path / "elsewhere" / "below")
    for name, mark in (("allowed", "right"), ("elsewhere", "wrong")):
        (tmp_path / name / "secret").write_text(mark)
        (tmp_path / name / "config").write_text(f"HostKeyAlias {mark}\n")
        asyncssh.generate_private_key("ssh-ed25519", mark).write_private_key(tmp_path / name / "key")
    _install(tmp_path, f'files = ["{tmp_path}/allowed/*"]')
    through = f"{tmp_path}/allowed/link/.."
    assert await resolve(SecretRef(file=f"{through}/secret")) == "right"
    spec = HostSpec(
        name="a", address="a.example", key_files=(f"{through}/key",), ssh_config=f"{through}/config",
        known_hosts=f"{through}/known_%r", user="../../../root/.ssh/x",
    )  # fmt: skip
    assert [key.get_comment() for key in (await KeyRing().login(spec))["client_keys"]] == ["right"]
    route = find_route(spec)
    assert route.alias == "right"
    assert route.known.files == (tmp_path / "allowed" / "known_%r",), "tokens are for names of an ssh config"


@pytest.mark.parametrize(
    "text", ["commands = 3", "commands = [3]", "comands = []", "commands = [", "[fleets.x]\ny = 1"]
)
async def test_a_file_that_cannot_be_read_allows_nothing(tmp_path: Path, text: str) -> None:
    _install(tmp_path, text)
    with pytest.raises(PolicyRefused, match=r"worker\.toml"):
        await resolve(SecretRef(command="echo x"))


async def test_a_file_that_others_may_write_allows_nothing(tmp_path: Path) -> None:
    path = _install(tmp_path, 'commands = ["*"]')
    path.chmod(0o620)
    with pytest.raises(PolicyRefused, match="open to other users"):
        await resolve(SecretRef(command="echo x"))
    path.unlink()
    with pytest.raises(PolicyRefused, match="cannot be read"):
        await resolve(SecretRef(command="echo x"))


def test_without_a_key_ring_no_command_of_a_fleet_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv(hosts_policy.ENV, raising=False)
    install(policy.of_worker(encrypting=False))
    with pytest.raises(PolicyRefused):
        asyncio.run(resolve(SecretRef(command="echo x")))
    assert "commands of fleet files run only if" in policy.warning(encrypting=False)
    assert not policy.warning(encrypting=True)
    install(policy.of_worker(encrypting=True))
    assert asyncio.run(resolve(SecretRef(command="echo x"))) == "x"
    assert NO_COMMANDS.allows_host("anything")


FLEET = FleetSpec(
    name="prod",
    target="2.3.2",
    core=CoreSpec(
        host=HostSpec(
            name="core", address="core.example.net", jump="ops@bastion.example.net", key_files=("~/k",),
            passphrase=SecretRef(command="pass \"a\\b\" 'ü'\x7f"),
        ),
        url="https://komodo.example.net:443/api",
        api_key=SecretRef(env="KOMODO_KEY"),
        api_secret=SecretRef(file="/run/secret"),
    ),
    servers=(),
    notify=Notify(command="tell"),
    source="/home/ann/my fleet.toml",
)  # fmt: skip


def test_the_embedded_workers_policy_is_what_its_owners_files_refer_to(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    path = tmp_path / "worker.toml"
    policy.allow_fleet(path, FLEET)
    policy.allow_fleet(path, replace(FLEET, name="dev", source="/home/ann/dev.toml", notify=Notify(command="other")))
    assert path.stat().st_mode & 0o777 == 0o600
    written = parse(path.read_text(), "x")
    assert parse(render(written), "x") == written
    assert written.fleets[FLEET.source] == references(FLEET)
    assert references(FLEET).hosts == ["core.example.net", "bastion.example.net", "komodo.example.net"]
    assert references(FLEET).files == ["/run/secret", f"{Path.home()}/k"]
    for command in ("tell", "other", "pass \"a\\b\" 'ü'\x7f"):
        assert written.allows_command(command)
    assert not written.allows_command("id")
    policy.allow_fleet(path, replace(FLEET, notify=Notify()))
    assert parse(path.read_text(), "x").allows_command("tell"), "a run with the older file may still need it"


def test_a_policy_is_read_again_when_it_was_replaced(tmp_path: Path) -> None:
    path = _install(tmp_path, "")
    with pytest.raises(PolicyRefused):
        asyncio.run(resolve(SecretRef(command="echo x")))
    policy.allow_fleet(path, replace(FLEET, notify=Notify(command="echo x")))
    assert asyncio.run(resolve(SecretRef(command="echo x"))) == "x"
    assert WorkerPolicy().allows_host("a") is False


def test_each_host_of_a_large_fleet_is_found_without_a_walk(monkeypatch: pytest.MonkeyPatch) -> None:
    servers = tuple(
        ServerSpec(name=f"s{n}", host=HostSpec(name=f"s{n}", address=f"S{n}.example")) for n in range(3_000)
    )
    allowed = WorkerPolicy().with_fleet(replace(FLEET, servers=servers))
    walked: list[str] = []

    def counted(name: str, pattern: str) -> bool:
        walked.append(pattern)
        return fnmatchcase(name, pattern)

    monkeypatch.setattr(worker_policy, "fnmatchcase", counted)
    assert all(allowed.allows_host(server.host.address.swapcase()) for server in servers)
    assert not walked
    assert not allowed.allows_host("s3000.example")
    more = allowed.with_fleet(
        replace(FLEET, source="other", servers=(replace(servers[0], host=HostSpec(name="z", address="z")),))
    )
    assert more.allows_host("z")
    assert not allowed.allows_host("z"), "a policy that was changed finds its own names"


@pytest.mark.parametrize(
    ("entry", "allowed", "refused"),
    [
        ("10.0.0.0/8", "10.1.2.3", "11.0.0.1"),
        ("::1", "0:0:0:0:0:0:0:1", "::2"),
        ("*.Example", "a.example", "a.example.net"),
        ("web[12]", "web1", "web[12]"),
        ("*", "anything", ""),
    ],
)
def test_an_entry_is_a_name_a_pattern_or_a_network(entry: str, allowed: str, refused: str) -> None:
    assert WorkerPolicy(hosts=[entry]).allows_host(allowed)
    assert not refused or not WorkerPolicy(hosts=[entry]).allows_host(refused)
