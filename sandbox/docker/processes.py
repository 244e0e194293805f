"""What runs in simulated containers: mongod, Core, the agent, or nothing in particular."""

from __future__ import annotations

from sandbox.docker.engine import Container, Engine, Program
from sandbox.komodo_core.program import CoreProgram
from sandbox.mongo.program import Mongo
from sandbox.periphery.agent import Agent


class AgentProgram:
    """Periphery in a container."""

    def __init__(self, engine: Engine, container: Container) -> None:
        self._engine = engine
        self._container = container
        self.agent = Agent(
            world=engine.host.world,
            host=engine.host.name,
            version=container.image.version,
            argv=list(container.spec.cmd or []),
            env=container.environment,
            say=container.say,
            # A published port is reached at the host's address.
            address=engine.host.address if container.spec.ports else container.address,
            locate=container.locate,
            with_core=engine.host.name == "core",
        )

    async def start(self) -> int | None:
        """Read the config and listen."""
        code = self.agent.start()
        fault = self._engine.host.world.faults.on("crash-loop", self._engine.host.name)
        if code is None and fault is not None and fault.covers(self.agent.version):
            self.agent.crash()
            return 1
        return code

    async def stop(self) -> None:
        """SIGTERM."""
        await self.agent.stop()


class Idle:
    """Any other image: runs and does nothing."""

    async def start(self) -> int | None:
        """Nothing."""
        return None

    async def stop(self) -> None:
        """Nothing."""


def run(engine: Engine, container: Container) -> Program:
    """The program of a container, by its image."""
    role = container.image.program
    if role == "mongo":
        return Mongo(engine, container)
    if role == "periphery":
        return AgentProgram(engine, container)
    if role == "core":
        return CoreProgram(engine, container)
    return Idle()
