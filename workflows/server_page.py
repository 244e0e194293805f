"""ServerPage: one step on the servers of a page, whose events are then not in the history of the fleet's workflow."""

from __future__ import annotations

from temporalio import workflow

from model.pages.servers import PageRequest, PageResult, ServerResult
from workflows.phases.server_steps import run_on_servers


@workflow.defn(name="ServerPage")
class ServerPage:
    """A child of a large fleet's workflow. It decides nothing: failures return to that workflow, which has gates."""

    @workflow.run
    async def run(self, request: PageRequest) -> PageResult:
        """Run the step on all servers at the same time."""
        results: dict[str, ServerResult] = {}

        def keep(result: ServerResult) -> None:
            results[result.name] = result

        failed = await run_on_servers(request, keep)
        results |= {name: ServerResult(name=name, failure=why) for name, why in failed.items()}
        return PageResult(servers=tuple(results[server.name] for server in request.servers))
