"""FindReturned: check servers that were offline until one answers. It may run for weeks, so it continues as new."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from temporalio import workflow

from model.facts import ServerFacts
from model.planning import is_unreachable
from model.status import OfflineRequest, Returned
from workflows.phases.server_steps import survey_once
from workflows.runtime.failures import each

_MOST_EVENTS = 2_000
"""Of one history. With one server and a check every 10 minutes that is more than a day."""
_EVENTS = 6
"""Of a survey or of a timer, at most. Counted here: Temporal's own count may be another one in a replay."""
_SHORTEST = timedelta(seconds=1)


@workflow.defn(name="FindReturned")
class FindReturned:
    """A child of the fleet's workflow, whose history does not grow while nothing returns. Changes nothing."""

    @workflow.run
    async def run(self, request: OfflineRequest) -> Returned:
        """Returns the servers that answer; none if there is none at the end of the time."""
        at, events = request.next_check, 0
        while True:
            if at > workflow.now():
                await workflow.sleep(at - workflow.now(), summary="check offline servers")
            if found := await _survey(request):
                # What is left is found by the next workflow at once: a payload holds the facts of a page.
                return Returned(servers=found[: request.fleet.page])
            now = workflow.now()
            if now >= request.until:
                return Returned()
            at = now + max(_SHORTEST, min(request.every, request.until - now))
            events += _EVENTS * (len(request.fleet.servers) + 1)
            if events > _MOST_EVENTS:
                workflow.continue_as_new(replace(request, next_check=at))


async def _survey(request: OfflineRequest) -> tuple[ServerFacts, ...]:
    found: dict[str, ServerFacts] = {}

    async def one(name: str) -> None:
        found[name] = await survey_once(request.fleet, name)

    await each([server.name for server in request.fleet.servers], one)
    names = [server.name for server in request.fleet.servers]
    return tuple(found[name] for name in names if not is_unreachable(found[name]))
