"""The search attributes of a run: registered once in a namespace, written by workflows, read by `list`."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from temporalio.api.enums.v1 import IndexedValueType
from temporalio.api.operatorservice.v1 import AddSearchAttributesRequest, ListSearchAttributesRequest
from temporalio.client import Client, WorkflowExecution
from temporalio.common import SearchAttributePair, TypedSearchAttributes
from temporalio.service import RPCError

from model.errors import UpgradeError
from workflows.runtime.live_status import FAILED, FLEET, GATE, KEYS, PHASE, WAITING_SINCE

_ANSWER = timedelta(seconds=10)


@dataclass(frozen=True, slots=True, kw_only=True)
class Indexed:
    """What Temporal's list says about a run without asking its workflow; empty where nothing is registered."""

    phase: str = ""
    gate: str = ""
    waiting_since: datetime | None = None
    failed: tuple[str, ...] = ()


async def register(client: Client) -> list[str]:
    """Register what is missing in the namespace; returns its names. Raises UpgradeError."""
    types = ", ".join(f"{key.name} ({_type(key.indexed_value_type)})" for key in KEYS)
    try:
        missing = [key for key in KEYS if key.name not in await _known(client)]
        if missing:
            new = {key.name: IndexedValueType.ValueType(int(key.indexed_value_type)) for key in missing}
            request = AddSearchAttributesRequest(namespace=client.namespace, search_attributes=new)
            await client.operator_service.add_search_attributes(request, timeout=_ANSWER)
    except RPCError as error:
        raise UpgradeError(
            f"the search attributes cannot be registered in namespace {client.namespace}: {error.message}",
            residue="upgrades work without them; `list` shows less",
            hint=f"Temporal Cloud: create them in the namespace's settings: {types}",
        ) from None
    return [key.name for key in missing]


async def for_start(client: Client, fleet: str) -> TypedSearchAttributes | None:
    """What a run is started with; None where they are not all registered: they would suspend the workflow."""
    try:
        known = await _known(client)
    except RPCError:
        return None
    if any(key.name not in known for key in KEYS):
        return None
    return TypedSearchAttributes([SearchAttributePair(FLEET, fleet)])


def read(execution: WorkflowExecution) -> Indexed:
    """Of one entry of Temporal's list."""
    found = execution.typed_search_attributes
    return Indexed(
        phase=found.get(PHASE) or "",
        gate=found.get(GATE) or "",
        waiting_since=found.get(WAITING_SINCE),
        failed=tuple(found.get(FAILED) or ()),
    )


async def _known(client: Client) -> dict[str, int]:
    request = ListSearchAttributesRequest(namespace=client.namespace)
    found = await client.operator_service.list_search_attributes(request, timeout=_ANSWER)
    return {name: int(kind) for name, kind in found.custom_attributes.items()}


def _type(kind: int) -> str:
    return IndexedValueType.Name(IndexedValueType.ValueType(int(kind))).removeprefix("INDEXED_VALUE_TYPE_").title()
