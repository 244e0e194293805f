"""`python -m bench.peers.plain FOLDER COUNT SITE`: upgrade servers with a plain asyncssh script, as the baseline.

One connection per host, twenty hosts at the same time, one command per step. Completed steps are not repeated.
"""

from __future__ import annotations

import argparse
import asyncio
import re
from pathlib import Path

import asyncssh

from bench import machines

AT_ONCE = 20


class Server:
    """One host of the fleet."""

    def __init__(self, connection: asyncssh.SSHClientConnection, root: str, url: str, sha256: str) -> None:
        self._connection, self._url, self._sha256 = connection, url, sha256
        self._agent = f"{root}/usr/local/bin/periphery"
        self._config = f"{root}/etc/komodo/periphery.config.toml"
        self._unit = f"{root}/etc/systemd/system/periphery.service"
        self._own = f"{root}/var/lib/by-hand"

    async def _run(self, command: str, text: str = "") -> str:
        done = await self._connection.run(command, input=text, check=True)
        return str(done.stdout)

    async def upgrade(self) -> None:
        """Survey, back up, stage, edit, switch and verify one host."""
        version = await self._run(f"{self._agent} --version")
        config = await self._run(f"cat {self._config}")
        if version.split() != ["periphery", machines.TARGET]:
            await self._run(f"mkdir -p {self._own} && cp -pn {self._agent} {self._config} {self._unit} {self._own}/")
            await self._stage()
            await self._edit(config)
            await self._run(
                f"systemctl stop periphery && mv {self._own}/staged {self._agent} && systemctl start periphery"
            )
        else:
            await self._run("systemctl start periphery")
        await self._verify()

    async def _stage(self) -> None:
        new = f"{self._own}/staged"
        said = await self._run(
            f"curl -fsSL -o {new} {self._url} && echo '{self._sha256}  {new}' | sha256sum -c --quiet && "
            f"chmod 755 {new} && {new} --version"
        )
        if said.split() != ["periphery", machines.TARGET]:
            raise SystemExit(f"{self._url} is {said}")

    async def _edit(self, config: str) -> None:
        if "\ncore_public_keys" in config:
            return
        edited = re.sub(r"(?m)^(passkeys = .*)$", rf'\1\ncore_public_keys = ["{machines.KEY}"]', config)
        new = f"{self._config}.new"
        await self._run(
            f"cat >{new} && chmod --reference={self._config} {new} && sync {new} && mv {new} {self._config}", edited
        )

    async def _verify(self) -> None:
        for _ in range(100):
            said = await self._run("systemctl is-active periphery && journalctl -u periphery -o cat -n 50")
            said = said.rpartition("version: ")[2]
            if said.startswith(f"v{machines.TARGET}") and "Logged in to Komodo Core" in said:
                return
            await asyncio.sleep(0.05)
        raise SystemExit("the agent does not come up")


async def upgrade_all(folder: Path, names: list[str], site: str) -> None:
    """Upgrade all hosts, AT_ONCE at the same time."""
    turns = asyncio.Semaphore(AT_ONCE)
    key = asyncssh.read_private_key(str(folder / "client_key"))
    known = asyncssh.read_known_hosts(str(folder / "known_hosts"))
    sha256 = machines.digest(machines.TARGET)

    async def one(name: str) -> None:
        url = f"{site}/{name}/periphery-{machines.TARGET}-{machines.arch()}"
        async with (
            turns,
            asyncssh.connect(
                machines.address(name),
                machines.PORT,
                username="root",
                client_keys=[key],
                known_hosts=known,
                config=None,
            ) as connection,
        ):
            await Server(connection, str(folder / "hosts" / name), url, sha256).upgrade()

    await asyncio.gather(*(one(name) for name in names))


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("count", type=int)
    parser.add_argument("site")
    options = parser.parse_args()
    asyncio.run(upgrade_all(options.folder, machines.names(options.count), options.site))


if __name__ == "__main__":
    main()
