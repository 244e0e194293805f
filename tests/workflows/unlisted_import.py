"""A workflow that imports a module which workflows/runtime/sandbox.py does not pass through."""

from __future__ import annotations

from temporalio import workflow

from komodo.public_key import validate


@workflow.defn
class UnlistedImport:
    @workflow.run
    async def run(self, key: str) -> str:
        return validate(key)
