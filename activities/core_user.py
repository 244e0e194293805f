"""Whether a Core that does not run as root can write where v2 keeps its keys."""

from __future__ import annotations

from activities.core_access import facts_in, script
from activities.core_survey import Look
from komodo.core_user import findings, is_root


async def look_at_keys(look: Look) -> None:
    """Adds a refusal where it cannot. A v2 Core has shown that it can."""
    core, edits = look.core, look.edits
    if core is None or edits is None or is_root(core) or not look.version.startswith("1."):
        return
    owner = mode = "-"
    if edits.keys_dir:
        done = await look.host.run(script("look_at_files.sh"), look.fleet.core.host.state_dir, edits.keys_dir)
        for line in facts_in(done).get("file", []):
            _, owner, mode = line.split("\t")[:3]
    look.findings += findings(core, edits.keys_dir, owner, mode)
