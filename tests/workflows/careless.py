"""A workflow that forgets to say how it imports the model: the guard must find it."""

from __future__ import annotations

from temporalio import workflow

from model.fleet import FleetSpec


@workflow.defn
class Careless:
    @workflow.run
    async def run(self, fleet: FleetSpec) -> str:
        return fleet.name
