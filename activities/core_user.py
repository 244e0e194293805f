"""Whether Core can write where v2 keeps its keys: into a folder, and one of its own user."""

from __future__ import annotations

from activities.core_access import facts_in, script
from activities.core_survey import Look
from komodo.compose_mounts import KEYS
from komodo.core_user import findings
from komodo.project import refuse


async def look_at_keys(look: Look) -> None:
    """Adds a refusal where it cannot. A v2 Core has shown that it can."""
    core, edits = look.core, look.edits
    if core is None or edits is None or not look.version.startswith("1."):
        return
    owner = mode = "-"
    if edits.keys_dir:
        done = await look.host.run(script("look_at_files.sh"), look.fleet.core.host.state_dir, edits.keys_dir)
        for line in facts_in(done).get("file", []):
            sha256, owner, mode = line.split("\t")[:3]
            if sha256 != "-":
                text = f"{edits.keys_dir} is a file: v2 keeps its keys in a folder of that name"
                cure = f"move it away, or mount another folder: `./core-keys:{KEYS}`"
                look.findings.append(refuse("keys-not-writable", text, cure))
                return
    look.findings += findings(core, edits.keys_dir, owner, mode)
