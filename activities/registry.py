"""Every activity of the project, built once per worker and sharing one set of SSH connections."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Iterator
from typing import Any

import activities

NAMES = (
    "survey_core",
    "survey_server",
    "recheck_core",
    "recheck_server",
    "back_up_core",
    "dump_database",
    "stage_core",
    "stop_core",
    "start_old_core",
    "write_core_files",
    "start_core",
    "read_core_key",
    "switch_core_agent",
    "restore_core_agent",
    "restore_core_files",
    "restore_database",
    "check_rollback",
    "return_to_new_core",
    "back_up_server",
    "stage_server",
    "switch_server",
    "restore_server",
    "verify_server",
    "release_host",
    "post_checks",
    "save_report",
    "notify",
)
"""What the workflows call. One that no worker knows is retried by Temporal for ever, so the worker checks at start."""


def build(hosts: Any) -> list[Callable[..., Any]]:
    """All activities as bound methods; `hosts` is the pool of connections they share."""
    methods: list[Callable[..., Any]] = []
    for kind in _classes():
        wants = inspect.signature(kind).parameters
        instance = kind(hosts) if wants else kind()
        methods += [member for _, member in inspect.getmembers(instance, callable) if _is_activity(member)]
    return methods


def missing(methods: list[Callable[..., Any]]) -> list[str]:
    """Names of NAMES that `methods` lack."""
    have = {_definition(method).name for method in methods}
    return [name for name in NAMES if name not in have]


def _classes() -> Iterator[type[Any]]:
    for info in pkgutil.iter_modules(activities.__path__):
        module = importlib.import_module(f"activities.{info.name}")
        for _, kind in inspect.getmembers(module, inspect.isclass):
            if kind.__module__ == module.__name__ and any(_is_activity(m) for m in vars(kind).values()):
                yield kind


def _is_activity(member: Any) -> bool:
    return callable(member) and _definition(member) is not None


def _definition(member: Any) -> Any:
    return getattr(member, "__temporal_activity_definition", None)
