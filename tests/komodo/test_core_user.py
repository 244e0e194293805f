from __future__ import annotations

import json
from typing import Any

import pytest

from komodo.core.containers import Container, parse_containers
from komodo.core.user import findings
from tests.komodo.inspected import entry


def core(user: str) -> Container:
    inspected: dict[str, Any] = entry("core", "x", service="core")
    inspected["Config"]["User"] = user
    return parse_containers(json.dumps([inspected]))[0]


@pytest.mark.parametrize(
    ("user", "owner", "mode", "good"),
    [
        ("", "-", "-", True),
        ("0:0", "-", "-", True),
        ("root", "0:0", "700", True),
        ("1000:1000", "-", "-", False),
        ("1000", "0:0", "755", False),
        ("1000:1000", "1000:1000", "700", True),
        ("1000:1000", "1000:0", "500", False),
        ("1000:1000", "0:1000", "770", True),
        ("1000", "0:1000", "770", False),
        ("komodo", "1000:1000", "700", False),
        ("komodo", "0:0", "1777", True),
    ],
)
def test_a_core_of_its_own_user_needs_a_folder_it_may_write_to(user: str, owner: str, mode: str, good: bool) -> None:
    found = findings(core(user), "/opt/komodo/keys", owner, mode)
    assert (found == []) == good
    for finding in found:
        assert finding.hint.startswith("sudo install -d -m 700 -o ")
        assert finding.hint.endswith(" /opt/komodo/keys")


def test_a_new_volume_is_roots() -> None:
    assert [f.code for f in findings(core("1000"), "", "-", "-")] == ["keys-not-writable"]
    assert findings(core(""), "", "-", "-") == []
