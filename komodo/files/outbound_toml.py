"""periphery.config.toml of an agent that is to connect to Core by itself: two settings added, and removed again."""

from __future__ import annotations

import json
import tomllib

from komodo.files.periphery_toml import NAME, inspect
from komodo.files.splice import newline_of
from komodo.files.toml_lines import statements
from model.errors import EditRefused


def connect_out(text: str, address: str, server: str) -> str:
    """The config with the address of Core and the name of the Server. One that has both already stays as it is.

    They stand before `core_public_keys`, which the upgrade has put above the first table. Raises EditRefused.
    """
    block = _block(text, address, server)
    snippet = "".join(block)
    if "".join(block) in text:
        return text
    facts = inspect(text)
    if not facts.loads or facts.core_addresses or "connect_as" in tomllib.loads(text.removeprefix("\ufeff")):
        raise EditRefused("the config does not load, or sets core_addresses or connect_as already", snippet=snippet)
    line = next((s.line for s in statements(text) if not s.table and s.path in ((NAME,), ("core_public_key",))), 0)
    if not line:
        raise EditRefused(f"the config has no {NAME} above its first table", snippet=snippet)
    lines = text.splitlines(keepends=True)
    bom = "\ufeff" if line == 1 and text.startswith("\ufeff") else ""
    after = bom + "".join([*lines[: line - 1], *block, *lines[line - 1 :]]).removeprefix(bom)
    if bom:
        after = bom + "".join(block) + text.removeprefix(bom)
    wanted = tomllib.loads(text.removeprefix("\ufeff")) | {"core_addresses": [address], "connect_as": server}
    if tomllib.loads(after.removeprefix("\ufeff")) != wanted:
        raise EditRefused("the two settings cannot be added without a change to others", snippet=snippet)
    return after


def connect_in(text: str, address: str, server: str) -> str:
    """The config as it was before `connect_out`. Raises EditRefused where somebody has changed these settings."""
    before = text.replace("".join(_block(text, address, server)), "", 1)
    if inspect(before).core_addresses:
        raise EditRefused("core_addresses is not what the upgrade has written", hint="remove it, and connect_as")
    return before


def _block(text: str, address: str, server: str) -> list[str]:
    end = newline_of(text)
    named = json.dumps(server, ensure_ascii=False)
    return [f"core_addresses = [{json.dumps(address)}]{end}", f"connect_as = {named}{end}"]
