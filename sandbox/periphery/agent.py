"""A Periphery agent, v1 or v2: reads its real config file, prints what the real one prints, admits Core or refuses it.

There is no socket behind it: Core (also simulated) asks it directly, by the rules of v2.3.2:bin/periphery/src/
connection/server.rs and v1.19.5:bin/periphery/src/api/router.rs as far as they are visible from outside.
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from sandbox import keys
from sandbox.faults import Faults
from sandbox.periphery import config
from sandbox.periphery.config import AgentConfig
from sandbox.periphery.log import line, panic
from sandbox.releases import marker_version
from sandbox.world import World, now

DEFAULT_CONFIG = "/etc/komodo/periphery.config.toml"
_DECODED = "Decoded error message over Core-Periphery communication channel"


@dataclass(frozen=True, slots=True, kw_only=True)
class CoreSide:
    """What Core presents when it connects."""

    server_id: str
    host: str
    """Host part of KOMODO_HOST: the query `core=`."""
    public_key: str
    passkey: str
    """Empty: Core has none."""
    address: str
    """From which Core comes."""
    url_host: str
    """Host of the Server's address as written: the agent sees it verbatim, Core in lower case."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why Core was refused, as v2.1+ shows it in ListServers."""

    error: str
    trace: tuple[str, ...] = ()


def refused_websocket(url: str, *trace: str) -> Refusal:
    """The connection could not even be opened."""
    return Refusal(f"Failed to connect to websocket | url: {url}", trace)


@dataclass(slots=True, kw_only=True)
class Agent:
    """One running (or failed) agent process."""

    world: World
    host: str
    """Name of the machine that it runs on."""
    version: str
    argv: list[str]
    env: dict[str, str]
    say: Callable[[str, str], None]
    """Takes a line and the stream's name."""
    address: str
    locate: Callable[[str], Path]
    """Where a path that the agent sees really lies."""
    with_core: bool = False
    """In Core's own project: faults of servers do not concern it."""
    real_paths: bool = False
    """Its folder is named by where it really lies, for commands on its host."""
    config: AgentConfig = field(default_factory=AgentConfig)
    public_key: str = ""
    running: bool = False
    sessions: dict[str, str] = field(default_factory=dict)
    """Core's host -> the Server it is logged in for."""
    started: float = 0.0
    _reported_failure: bool = False

    @property
    def major(self) -> int:
        """1 or 2."""
        return int(self.version.split(".")[0])

    @property
    def open_to_all(self) -> bool:
        """Accepts any Core."""
        if self.major == 1:
            return not self.config.passkeys
        keys_set = self.config.core_public_keys
        return keys_set == [] or (keys_set is None and self.config.passkeys is None)

    def start(self) -> int | None:
        """Read the config and listen. Returns an exit code when it ends at once."""
        paths = self._config_paths()
        ignore = self._ignores_config()
        self.config = config.load(self.major, paths, self.env, self.locate, ignore_files=ignore)
        if self.major >= 2:
            self.say("[" + ", ".join(f'"{p}"' for p in paths) + "]", "stdout")
        if self.real_paths:
            self.config.values["root_directory"] = str(self.locate(self._root()))
        for text in self.config.said:
            self.say(text, "stderr")
        if self.config.panicked:
            return 1
        code = self._start_v1() if self.major == 1 else self._start_v2()
        if code is None:
            self.running, self.started = True, now().timestamp()
            if self.core_addresses:
                self.world.dialling.append(self)
            if not self.core_addresses or self.config.get("server_enabled"):
                self.world.listening[self.address, self.config.port] = self
        return code

    @property
    def core_addresses(self) -> list[str]:
        """Where it connects to by itself; none: it waits for Core."""
        return [str(a) for a in self.config.get("core_addresses") or []] if self.major >= 2 else []

    @property
    def name(self) -> str:
        """The Server that it connects as."""
        return str(self.config.get("connect_as") or self.host)

    async def stop(self) -> None:
        """SIGTERM."""
        self._log("INFO", "Exiting all active Terminals for shutdown")
        self.vanish()

    def crash(self) -> None:
        """End with a panic, as a broken build would."""
        for text in panic("bin/periphery/src/main.rs:57:5", "sandbox: this agent is made to fail"):
            self.say(text, "stderr")
        self.vanish()

    def vanish(self) -> None:
        """End without a word."""
        self.running = False
        self.sessions.clear()
        place = (self.address, self.config.port)
        if self.world.listening.get(place) is self:
            del self.world.listening[place]
        if self in self.world.dialling:
            self.world.dialling.remove(self)

    def _ignores_config(self) -> bool:
        fault = self.world.faults.on("agent-ignores-config", self.host)
        return fault is not None and fault.covers(self.version)

    def _config_paths(self) -> list[str]:
        paths: list[str] = []
        rest = list(self.argv)
        while rest:
            word = rest.pop(0)
            name, equals, value = word.partition("=")
            if name in {"--config-path", "-c"}:
                paths.append(value if equals else (rest.pop(0) if rest else ""))
        upper = {k.upper(): v for k, v in self.env.items()}
        from_env = upper.get("PERIPHERY_CONFIG_PATHS") or upper.get("PERIPHERY_CONFIG_PATH")
        return paths or (from_env.split(",") if from_env else [DEFAULT_CONFIG])

    def _log(self, level: str, text: str, span: str = "") -> None:
        ansi = self.config.ansi or self.major == 1
        self.say(line(level, text, ansi=ansi, span=span, target="periphery" if self.major == 1 else ""), "stdout")

    def _root(self) -> str:
        return str(self.config.get("root_directory", "/etc/komodo")).rstrip("/")

    def _listening(self) -> str:
        scheme = "https" if self.config.get("ssl_enabled", True) else "http"
        return f"{scheme}://{self.config.get('bind_ip', '[::]')}:{self.config.port}"

    def _start_v1(self) -> int | None:
        self._log("INFO", f"Komodo Periphery version: v{self.version}")
        self._log("INFO", config.render(self.config, self.version))
        if self.config.get("ssl_enabled", True):
            self._log("INFO", "🔒 Periphery SSL Enabled")
            self._certificate()
        else:
            self._log("INFO", "🔓 Periphery SSL Disabled")
        self._log("INFO", f"Komodo Periphery starting on {self._listening()}")
        return None

    def _certificate(self) -> None:
        key = self.locate(str(self.config.get("ssl_key_file") or f"{self._root()}/ssl/key.pem"))
        if key.is_file():
            return
        span = "generate_self_signed_ssl_certs"
        if self.major == 1:
            self.say(line("INFO", "Generating certs...", ansi=True, span=span, target="periphery::ssl"), "stdout")
        key.parent.mkdir(parents=True, exist_ok=True)
        key.write_text("not a real key\n")
        if self.major == 1:
            self.say(line("INFO", "✅ SSL Certs generated", ansi=True, span=span, target="periphery::ssl"), "stdout")

    def _start_v2(self) -> int | None:
        span = "PeripheryStartup"
        self._log("INFO", f"Komodo Periphery version: v{self.version}", span)
        self._log("INFO", config.render(self.config, self.version), span)
        given = str(self.config.get("private_key") or f"file:{self._root()}/keys/periphery.key")
        if given.startswith("file:"):
            name = given.removeprefix("file:")
            self.public_key, new = keys.ensure_pair(self.locate(name))
            if new:
                self._log("INFO", f'Writing private key to "{name}"', span)
                self._log("INFO", f'Writing public key to "{name.removesuffix(".key")}.pub"', span)
        else:
            self.public_key = keys.read_private(given)
        self._log("INFO", f"Public Key: {self.public_key}", span)
        for text in self.config.core_public_keys or []:
            _, problem = keys.check_core_key(text, self.locate)
            if problem and self._writes_key(text):
                self._log("WARN", problem, span)
            elif problem:
                self._log("ERROR", problem, span)
                return 1
        if self.core_addresses:
            for address in self.core_addresses:
                url = address.replace("http", "ws", 1)
                text = f"Initiating outbound connection to {url}/ws/periphery?server={self.name}"
                self._log("INFO", text, f'{span}:StartCoreConnection{{address="{address}"}}')
            if not self.config.get("server_enabled"):
                return None
        self._certificate()
        self._log("INFO", "🔒 Server SSL Enabled" if self.config.get("ssl_enabled", True) else "🔓 Server SSL Disabled")
        self._log("INFO", f"Server starting on {self._listening()}")
        return None

    # --- requests of Core ---------------------------------------------------------------------------------------------

    def _blocked(self, address: str) -> bool:
        allowed = self.config.get("allowed_ips") or []
        if not allowed:
            return False
        plain = ipaddress.ip_address(address)
        mapped = ipaddress.ip_address(f"::ffff:{address}")
        networks = [ipaddress.ip_network(str(a), strict=False) for a in allowed]
        return not any((plain if n.version == 4 else mapped) in n for n in networks)

    def request(self, passkey: str, address: str) -> int:
        """A v1 Core's `POST /`: the HTTP status."""
        if self._blocked(address):
            return 401
        if self.major >= 2:
            return 405
        return 401 if self.config.passkeys and passkey not in self.config.passkeys else 200

    def connect(self, core: CoreSide, url: str) -> Refusal | None:
        """A v2 Core's websocket and login. None: logged in."""
        if self._blocked(core.address):
            return refused_websocket(url, "HTTP error: 401 Unauthorized")
        if self.major == 1:
            status = "401 Unauthorized" if self.config.passkeys else "405 Method Not Allowed"
            return refused_websocket(url, f"HTTP error: {status}")
        if "//?" in url:
            return refused_websocket(url, "HTTP error: 404 Not Found")
        if self.sessions.get(core.host, core.server_id) != core.server_id:
            text = f"Connection for {core.host} is already active: Receiver is already locked: operation would block"
            self._log("WARN", text)
            return refused_websocket(url, "HTTP error: 500 Internal Server Error")
        refusal = self._passkey_flow(core) if self._wants_passkey() else self._key_flow(core)
        if refusal is None:
            self.sessions[core.host] = core.server_id
            self._reported_failure = False
            self._log("INFO", f"Logged in to Komodo Core {core.host} websocket")
        return refusal

    def dial(self, core: CoreSide) -> bool:
        """Connect to a v2 Core that knows this agent. False: this agent refuses Core's key."""
        wanted = self.config.core_public_keys
        for text in [f"file:{self._root()}/keys/core.pub"] if wanted is None else wanted:
            if self._writes_key(text):
                keys.write_public(self.locate(text.removeprefix("file:")), core.public_key)
                span = f'CoreLogin:ValidateCorePublicKey{{public_key="{core.public_key}"}}'
                self._log("INFO", f'Writing public key to "{text.removeprefix("file:")}"', span)
            if keys.check_core_key(text, self.locate)[0] == core.public_key:
                break
        else:
            if wanted != []:
                rule = "Ensure public key matches one of the 'core_public_keys'"
                self._fail_login(f"Periphery failed to validate Core public key: {rule}: {core.public_key} is invalid")
                return False
        self.sessions[core.host] = core.server_id
        self._reported_failure = False
        self._log("INFO", f"Logged in to Komodo Core {core.url_host} websocket as Server {self.name}")
        return True

    def take_key(self, key: str) -> None:
        """Core has rotated its keys: every file that is pinned holds the new one."""
        for text in self.config.core_public_keys or []:
            if text.startswith("file:"):
                keys.write_public(self.locate(text.removeprefix("file:")), key)

    def _writes_key(self, text: str) -> bool:
        """A missing key file is written at the first contact, where the agent only connects by itself."""
        only_out = bool(self.core_addresses) and not self.config.get("server_enabled")
        return only_out and text.startswith("file:") and not self.locate(text.removeprefix("file:")).is_file()

    def closed(self, core_host: str) -> None:
        """Core is gone."""
        if self.sessions.pop(core_host, None) is not None:
            self._log("WARN", "Connection closed")

    def _wants_passkey(self) -> bool:
        return self.config.core_public_keys is None and self.config.passkeys is not None

    def _fail_login(self, text: str) -> None:
        if not self._reported_failure:  # logged once, until a login succeeds
            self._log("WARN", f"Core failed to login to connection | {text}")
        self._reported_failure = True

    def _passkey_flow(self, core: CoreSide) -> Refusal | None:
        if not core.passkey:
            return Refusal("Periphery requires passkey auth")
        if not self._reported_failure:
            advice = "Set 'core_public_key' (PERIPHERY_CORE_PUBLIC_KEY) instead to enhance security."
            span = 'CoreLogin{direction="CoreToPeriphery"}:V1PasskeyCoreLoginFlow'
            self._log("WARN", f"Authenticating using Passkeys. {advice}", span)
        if core.passkey in (self.config.passkeys or []):
            return None
        self._fail_login("Invalid passkey")
        return Refusal("Failed to receive Login Success message", ("Invalid passkey",))

    def _key_flow(self, core: CoreSide) -> Refusal | None:
        if core.url_host != core.url_host.lower():
            failure = "[Client] Failed to read handshake_m2"
            self._fail_login(f"[Server] Failed to get handshake_m3: {_DECODED}: {failure}: decrypt error")
            return Refusal(failure, ("decrypt error",))
        wanted = self.config.core_public_keys or []
        known = [keys.check_core_key(text, self.locate)[0] for text in wanted]
        spoiled = not self.with_core and self.world.faults.on("wrong-key", self.host) is not None
        if not spoiled and (not wanted or core.public_key in known):
            return None
        rule = (
            "Ensure public key matches one of the 'core_public_keys' in periphery config (PERIPHERY_CORE_PUBLIC_KEYS)"
        )
        failure = "Periphery failed to validate Core public key"
        self._fail_login(f"{failure}: {rule}: {core.public_key} is invalid")
        trace = (_DECODED, failure, rule, f"{core.public_key} is invalid")
        return Refusal("[Client] Failed to receive Login Success message", trace)


def binary_version(faults: Faults, host: str, path: Path) -> tuple[str, str]:
    """(version of the stand-in binary at `path`, the shell's error when it cannot be run)."""
    if not path.is_file():
        return "", f"/bin/sh: 1: {path}: not found"
    if not os.access(path, os.X_OK):
        return "", f"/bin/sh: 1: {path}: Permission denied"
    with path.open("rb") as file:
        head = file.read(512)
    version = marker_version(head)
    if not version:
        word = head.split(b"\n", 1)[0].split(b" ", 1)[0].decode("utf-8", "replace")[:60]
        return "", f"{path}: 1: {word}: not found"
    if version.startswith("2.") and faults.on("old-libc", host):
        return version, f"{path}: /lib/x86_64-linux-gnu/libc.so.6: version `GLIBC_2.34' not found (required by {path})"
    return version, ""
