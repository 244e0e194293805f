"""How sentences name the version before: agents of v1 cannot talk to a v2 Core, those of an older v2 can.

The login between Core and agent is the same from v2.0.0 to v2.3.2 (v2.3.2:lib/transport/src).
"""

from __future__ import annotations

from collections.abc import Iterable

V1 = "v1"


def old_name(*versions: str) -> str:
    """Name it: "v1", or the version of a v2 ("2.0.0"). Unknown and empty versions count as v1."""
    names = {v if v.startswith(("2.", "3.")) else V1 for v in versions}
    return names.pop() if len(names) == 1 else (V1 if V1 in names or not names else "the old version")


def cut_off(versions: Iterable[str] | str, words: str) -> str:
    """`words` about a server that a v2 Core cannot reach; empty where the old version is a v2, which it can."""
    given = (versions,) if isinstance(versions, str) else tuple(versions)
    return words if old_name(*given) == V1 else ""
