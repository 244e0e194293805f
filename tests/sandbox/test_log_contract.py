"""The sandbox's agents and Core say what the real ones said, line by line, for the same config."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from sandbox import keys
from sandbox.fleet import Sandbox
from sandbox.komodo_core import log
from sandbox.machine.host import SandboxHost
from sandbox.periphery.agent import Agent, CoreSide
from sandbox.world import World
from tests.sandbox.conftest import until
from tests.sandbox.shapes import plain

CORE_KEY = "MCowBQYDK2VuAyEAhixFldecUM47tVbkdqhhYn6H1pCbHFsT+Zgz0B2XdgY="
OTHER_KEY = "MCowBQYDK2VuAyEAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="
ED25519 = "MCowBQYDK2VwAyEAhixFldecUM47tVbkdqhhYn6H1pCbHFsT+Zgz0B2XdgY="
BASE = 'port = 8120\nroot_directory = "/etc/komodo"\nssl_enabled = true\nstats_polling_rate = "1-sec"\n'
QUIET = {"PERIPHERY_LOGGING_ANSI": "false", "PERIPHERY_BIND_IP": "127.0.0.1"}


@dataclass
class Case:
    """One start of an agent: what is in its config, whether Core comes along, whether it is stopped."""

    text: str
    version: str = "2.3.2"
    core: str | None = "passkey-of-core"
    """Core's passkey; None: no Core comes."""
    env: dict[str, str] = field(default_factory=lambda: dict(QUIET))
    code: int | None = None
    upper_case: bool = False


def _captured_input(file: Path) -> str:
    """The very config of a duplicate-key case: the warning holds it."""
    found = re.search(r'input: Some\("((?:[^"\\]|\\.)*)"\)', file.read_text())
    assert found
    text: str = json.loads(f'"{found.group(1)}"')
    return text


CASES = {
    "v2agent-key+passkeys": Case(f'{BASE}core_public_keys = ["{CORE_KEY}"]\npasskeys = ["p"]\n'),
    "v2agent-key+passkeys-empty": Case(f'{BASE}core_public_keys = ["{CORE_KEY}"]\npasskeys = []\n'),
    "v2agent-no-auth": Case(BASE),
    "v2agent-passkey-ok": Case(f'{BASE}passkeys = ["passkey-of-core"]\n'),
    "v2agent-passkeys-empty": Case(f"{BASE}passkeys = []\n"),
    "v2agent-wrong-key": Case(f'{BASE}core_public_keys = ["{OTHER_KEY}"]\npasskeys = ["p"]\n'),
    "v2agent-empty-keys": Case(f'{BASE}core_public_keys = []\npasskeys = ["p"]\n'),
    "v2agent-string-two": Case(f'{BASE}core_public_keys = "{OTHER_KEY}, {CORE_KEY}"\n'),
    "v2agent-ed25519": Case(f'{BASE}core_public_keys = ["{ED25519}"]\n', code=1),
    "v2agent-truncated": Case(f'{BASE}core_public_keys = ["{CORE_KEY[:57]}"]\n', code=1),
    "v2agent-garbage": Case(f'{BASE}core_public_keys = ["hello"]\n', code=1),
    "v2agent-file-missing": Case(f'{BASE}core_public_keys = ["file:/nope/core.pub"]\n', code=1),
    "v2agent-after-table": Case(f'{BASE}[secrets]\nA = "b"\ncore_public_keys = ["{CORE_KEY}"]\n', code=1),
    "v2agent-alias-pair": Case(f"{BASE}disable_container_exec = true\ndisable_container_terminals = true\n", code=1),
    "v2agent-ansi": Case(
        f'{BASE}core_public_keys = ["{CORE_KEY}"]\npasskeys = ["p"]\n',
        env={"PERIPHERY_BIND_IP": "127.0.0.1"},
        core=None,
    ),
    "v2agent-dup-key": Case(""),
    "v1agent-dup-key": Case("", version="1.19.5", env={**QUIET, "PERIPHERY_PORT": "8121"}, core=None),
    "v1agent-ok": Case(
        f'{BASE}passkeys = ["p"]\ninclude_disk_mounts = ["/"]\n[secrets]\nA = "b"\n', version="1.19.5", core=None
    ),
}


def make_agent(case: Case, folder: Path, said: list[str]) -> Agent:
    world = World(id="test", net="127.99.99")
    host = SandboxHost(world, "web-1", folder, "127.99.99.11")
    config = folder / "etc/komodo/periphery.config.toml"
    config.parent.mkdir(parents=True)
    config.write_text(case.text)
    agent = Agent(
        world=world,
        host=host.name,
        version=case.version,
        argv=["--config-path", "/etc/komodo/periphery.config.toml"],
        env=case.env,
        say=lambda line, _stream: said.append(line),
        address=host.address,
        locate=host.path,
    )
    key = folder / "etc/komodo/keys/periphery.key"
    keys.ensure_pair(key)  # the captured agents had run before
    return agent


def side(passkey: str, *, url_host: str = "127.0.0.1", server: str = "1") -> CoreSide:
    return CoreSide(
        server_id=server, host="localhost", public_key=CORE_KEY, passkey=passkey, address="127.0.0.1", url_host=url_host
    )


@pytest.mark.parametrize("name", CASES)
async def test_agent_says_what_the_real_one_said(name: str, captures: Path, tmp_path: Path) -> None:
    case = CASES[name]
    file = captures / "logs" / f"{name}.log"
    if name.endswith("dup-key"):
        case.text = _captured_input(file)
    said: list[str] = []
    agent = make_agent(case, tmp_path, said)
    code = agent.start()
    assert code == case.code
    if code is None:
        if case.core is not None:
            agent.connect(side(case.core), "wss://127.0.0.1:8120/?core=localhost")
            if name == "v2agent-passkeys-empty":
                agent.connect(side(case.core), "wss://127.0.0.1:8120/?core=localhost")  # configured once
        await agent.stop()
    wanted = file.read_text().splitlines()
    if name == "v2agent-ansi":
        assert "\x1b[32m INFO\x1b[0m" in "\n".join(said)
    assert plain(said) == plain(wanted)
    for line in said:
        if "duplicate key" in line:
            span = re.search(r"span: Some\((\d+)\.\.(\d+)\)", line)
            assert span
            second = case.text.encode()[int(span.group(1)) : int(span.group(2))].decode()
            assert case.text.rindex(second) == int(span.group(1))
            assert second in ("passkeys", "core_public_keys")


async def test_wrong_addresses(captures: Path, tmp_path: Path) -> None:
    """Two Servers on one agent, and a host name in upper case."""
    said: list[str] = []
    case = Case(f'{BASE}core_public_keys = ["{CORE_KEY}"]\npasskeys = ["p"]\n')
    agent = make_agent(case, tmp_path, said)
    assert agent.start() is None
    url = "wss://127.0.0.1:8120/?core=localhost"
    assert agent.connect(side(""), url) is None
    agent.closed("localhost")
    refused = agent.connect(side("", url_host="LOCALHOST"), url)
    assert refused is not None
    assert refused.trace == ("decrypt error",)
    assert agent.connect(side(""), url) is None
    for _ in range(3):
        second = agent.connect(side("", server="2"), url)
        assert second is not None
        assert second.trace == ("HTTP error: 500 Internal Server Error",)
    await agent.stop()
    assert plain(said) == plain((captures / "logs/v2agent-addr.log").read_text().splitlines())


CORE_ENV = {
    "KOMODO_HOST": "http://localhost:9120", "KOMODO_BIND_IP": "127.0.0.1",
    "KOMODO_DATABASE_ADDRESS": "127.0.0.1:27017", "KOMODO_PASSKEY": "x", "KOMODO_LOCAL_AUTH": "true",
    "KOMODO_INIT_ADMIN_USERNAME": "admin", "KOMODO_INIT_ADMIN_PASSWORD": "x", "KOMODO_JWT_SECRET": "x",
    "KOMODO_MONITORING_INTERVAL": "1-sec", "KOMODO_LOGGING_ANSI": "false",
}  # fmt: skip


@pytest.mark.parametrize("version", ["1.19.5", "2.0.0", "2.3.2"])
def test_core_config_line(version: str, captures: Path) -> None:
    text = (captures / f"logs/core-v{version}-start.log").read_text()
    wanted = next(line for line in text.splitlines() if "CoreConfig {" in line)
    assert log.config(CORE_ENV, version) == wanted[wanted.index("CoreConfig") :]


@pytest.mark.parametrize("version", ["1.19.5", "2.0.0", "2.3.2"])
async def test_core_start_lines(version: str, captures: Path, tmp_path: Path) -> None:
    """The first lines up to the open port. The captured v2.0.0 had its keys already."""
    async with await Sandbox.start(tmp_path, servers=0, core_version=version, speed=20) as sandbox:
        core = sandbox.core
        assert core is not None
        found = [text for _, _, text in core.container.logs]
    wanted = (captures / f"logs/core-v{version}-start.log").read_text().splitlines()
    last = next(i for i, line in enumerate(wanted) if "tarting on http://" in line)

    def skeleton(lines: list[str]) -> list[str]:
        plain_lines = [re.sub(r"\x1b\[\d+m", "", line) for line in plain(lines)]
        kept = [line for line in plain_lines if "Writing p" not in line and "initialize first Server" not in line]
        cut = [line.partition("CoreConfig {")[0] for line in kept]
        return [line.replace("127.0.0.1:", "[::]:") for line in cut]

    assert skeleton(found) == skeleton(wanted[: last + 1])
    if version == "2.3.2":
        writing = [line.partition("CoreStartup")[2].replace("\x1b[0m\x1b[2m:\x1b[0m", ":") for line in found]
        assert ': Writing private key to "/config/keys/core.key"' in writing


@pytest.mark.parametrize(
    ("name", "extra"),
    [
        ("alias-pair", {"KOMODO_FIRST_SERVER": "a", "KOMODO_FIRST_SERVER_ADDRESS": "b"}),
        ("tz-pair", {"TZ": "Etc/UTC", "KOMODO_TIMEZONE": "Etc/UTC"}),
    ],
)
async def test_core_panics_on_two_spellings(name: str, extra: dict[str, str], captures: Path, tmp_path: Path) -> None:
    """v2 ends at once and is restarted by Docker, for ever."""
    async with await Sandbox.start(tmp_path, servers=0, speed=20) as sandbox:
        container = sandbox.engine.find("komodo-core-1")
        assert container is not None
        await sandbox.engine.stop(container)
        image = sandbox.engine.store.published("ghcr.io/moghtech/komodo-core:2.3.2")
        assert image is not None
        sandbox.engine.store.add(image)
        container.spec.image = "ghcr.io/moghtech/komodo-core:2.3.2"
        container.spec.env = [e for e in container.spec.env if not e.startswith(("TZ=", "KOMODO_FIRST"))]
        container.spec.env += [f"{k}={v}" for k, v in extra.items()]
        new = sandbox.engine.create(container.spec)
        await sandbox.engine.start(new)
        await until(lambda: new.restarts >= 1, what="a restart")
        found = [text for _, _, text in new.logs]
        await sandbox.engine.remove(new)
    wanted = (captures / f"logs/core-v2.3.2-{name}.log").read_text().splitlines()
    assert plain(found)[: len(wanted)] == plain(wanted)


async def test_v1_core_on_a_database_that_v2_touched(captures: Path, tmp_path: Path) -> None:
    async with await Sandbox.start(tmp_path, servers=0, speed=20) as sandbox:
        core = sandbox.core
        assert core is not None
        for document in sandbox.store.peek("komodo", "Server").documents:
            document["info"] = {"attempted_public_key": "", "public_key": ""}
        await sandbox.engine.stop(core.container)
        await sandbox.engine.start(core.container)
        needle = "failed to get server list"
        await until(lambda: any(needle in text for _, _, text in core.container.logs), what=needle)
        found = plain([text for _, _, text in core.container.logs])
    wanted = plain((captures / "logs/core-v1.19.5-on-v2-database.log").read_text().splitlines())
    assert set(wanted) <= set(found)


async def test_v2_core_with_a_host_that_is_no_url(captures: Path, tmp_path: Path) -> None:
    """It answers /version, says why in its log, and no server ever becomes Ok."""
    async with await Sandbox.start(
        tmp_path, servers=1, core_version="2.3.2", agent_version="2.3.2", core_url="komodo.example.com", speed=20
    ) as sandbox:
        core = sandbox.core
        assert core is not None
        core.tick()
        assert {(s.state, s.err) for s in core.status.values()} == {("NotOk", None)}
        found = [re.sub(r"\x1b\[\d+m", "", line) for line in plain([text for _, _, text in core.container.logs])]
    wanted = plain((captures / "logs/core-v2.3.2-host-no-scheme.log").read_text().splitlines())
    for line in wanted:
        if line and "CoreConfig" not in line:
            assert line in found
