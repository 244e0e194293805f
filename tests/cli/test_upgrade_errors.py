"""Errors of a command when Temporal does not answer."""

from __future__ import annotations

from unittest.mock import MagicMock

from temporalio.service import RPCError, RPCStatusCode

from service.client import Upgrade


def test_an_unreachable_server_is_reported_with_the_command_that_starts_it() -> None:
    lost = RPCError("transport error", RPCStatusCode.UNAVAILABLE, b"")
    shown = Upgrade(MagicMock(), "prod")._explain(lost)
    assert "`komodo-upgrade status` starts the embedded server again" in shown.hint
    assert "continues" in shown.residue
