"""How Core's API answers when a request fails."""

from __future__ import annotations


class ApiError(Exception):
    """`{"error": …, "trace": […]}` with a status."""

    def __init__(self, error: str, *trace: str, status: int = 500) -> None:
        super().__init__(error)
        self.status = status
        self.body = {"error": error, "trace": list(trace)}
