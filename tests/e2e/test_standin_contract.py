"""The stand-in agents as processes log what real agents logged: the sandbox's contract once more."""

from __future__ import annotations

import base64
import os
import re
import signal
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from sandbox import keys
from tests.e2e.bed.settings import Switch
from tests.e2e.bed.shell import wait_for
from tests.e2e.standins import pack
from tests.e2e.standins.line import RemoteAgent
from tests.sandbox.shapes import plain
from tests.sandbox.test_log_contract import CASES, CORE_KEY, Case, _captured_input, side

pytestmark = pytest.mark.e2e_all


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`v1.19.5/periphery` and others, built as for the test bed."""
    folder = tmp_path_factory.mktemp("programs")
    pack.build(Switch(komodo=folder, tools=folder / "tools", real_komodo=False, real_tools=True, official=None))
    return folder


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def _as_written(shown: str, root: Path, port: int, wanted: str) -> list[str]:
    """Replace the test's folder and port by the captured ones."""
    captured = re.search(r"port: (\d+)", wanted)
    text = shown.replace(str(root), "")
    return text.replace(str(port), captured.group(1) if captured else "8120").splitlines()


def _machine(case: Case, root: Path) -> Path:
    """A machine on which this agent has run before: configuration and key pair; it creates its certificate."""
    config = root / "etc/komodo/periphery.config.toml"
    config.parent.mkdir(parents=True)
    config.write_text(case.text)
    keys.ensure_pair(root / "etc/komodo/keys/periphery.key")
    return config


@pytest.mark.parametrize("name", CASES)
def test_the_agent_logs_what_the_real_one_logged(name: str, programs: Path, captures: Path, tmp_path: Path) -> None:
    case, file = CASES[name], captures / "logs" / f"{name}.log"
    private = X25519PrivateKey.generate()
    public = keys.public_text(private.public_key())
    text = _captured_input(file) if name.endswith("dup-key") else case.text
    case = replace(case, text=text.replace(CORE_KEY, public))
    config, port = _machine(case, tmp_path), _free_port()
    env = {**case.env, "PATH": os.environ["PATH"], "PERIPHERY_PORT": str(port),
           "PERIPHERY_ROOT_DIRECTORY": f"{tmp_path}/etc/komodo"}  # fmt: skip
    agent = subprocess.Popen(
        [sys.executable, programs / f"v{case.version}" / "periphery", "--config-path", config],
        env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    try:
        remote = RemoteAgent(f"https://127.0.0.1:{port}")
        remote.private = private
        wait_for("the agent", lambda: agent.poll() is not None or remote.running, seconds=60, pause=0.05)
        if case.code is None:
            assert agent.poll() is None
            if case.core is not None:
                core = replace(side(case.core), public_key=public)
                for _ in range(2 if name == "v2agent-passkeys-empty" else 1):
                    remote.connect(core, "wss://127.0.0.1:8120/?core=localhost")
            agent.send_signal(signal.SIGTERM)
        shown, _ = agent.communicate(timeout=30)
    finally:
        agent.kill()
    wanted = file.read_text()
    assert plain(_as_written(shown, tmp_path, port, wanted)) == plain(wanted.splitlines())
    if case.code is not None:
        assert agent.returncode == case.code


def test_core_without_its_private_key_is_refused(programs: Path, tmp_path: Path) -> None:
    """The stand-ins' protocol proves possession of the key, as Komodo's handshake does."""
    private = X25519PrivateKey.generate()
    public = keys.public_text(private.public_key())
    assert len(base64.b64decode(public)) == 44
    base = 'ssl_enabled = true\nstats_polling_rate = "1-sec"\n'
    case = Case(f'{base}core_public_keys = ["{public}"]\n')
    config, port = _machine(case, tmp_path), _free_port()
    env = {**case.env, "PATH": os.environ["PATH"], "PERIPHERY_PORT": str(port),
           "PERIPHERY_ROOT_DIRECTORY": f"{tmp_path}/etc/komodo"}  # fmt: skip
    agent = subprocess.Popen(
        [sys.executable, programs / "v2.3.2" / "periphery", "--config-path", config],
        env=env, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        remote = RemoteAgent(f"https://127.0.0.1:{port}")
        wait_for("the agent", lambda: remote.running, seconds=60, pause=0.05)
        core = replace(side("passkey-of-core"), public_key=public)
        remote.private = X25519PrivateKey.generate()
        assert remote.connect(core, "wss://127.0.0.1:8120/?core=localhost") is not None
        remote.private = private
        assert remote.connect(core, "wss://127.0.0.1:8120/?core=localhost") is None
    finally:
        agent.kill()
        agent.wait()
