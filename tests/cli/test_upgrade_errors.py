"""What a command says when Temporal does not answer it."""

from __future__ import annotations

from unittest.mock import MagicMock

from temporalio.service import RPCError, RPCStatusCode

from cli.upgrade import Upgrade


def test_a_server_that_died_is_told_with_what_starts_it_again() -> None:
    lost = RPCError("transport error", RPCStatusCode.UNAVAILABLE, b"")
    said = Upgrade(MagicMock(), "prod")._explain(lost)
    assert "`komodo-upgrade status` starts the embedded server again" in said.cure
    assert "goes on" in said.left
