"""What was found on Core's host, judged: settings that v2 stumbles over, versions, room, bots."""

from __future__ import annotations

import re

from activities.core_survey import Look
from komodo.core_settings import AGENT_ALIASES, CORE_ALIASES, alias_findings, host_findings, setting_findings
from komodo.project import refuse, warn
from komodo.releases import version_of
from komodo.v1_documents import why_not_kept
from model.fleet import TOGETHER
from model.steps import KEEP

OLDEST_CORE = (1, 15, 0)
"""The oldest release whose files and settings are known."""
PRIVATE_KEY = "file:/config/keys/core.key"
"""Where v2 Core keeps its key unless told otherwise."""
_BOTS = ("watchtower", "ouroboros", "renovate", "dockcheck", "tugtainer")
_GIB = 1024**3


def judge(look: Look, core_key: str) -> None:
    """All of it. `core_key`: Core's public key, where it is v2 already."""
    judge_settings(look)
    judge_version(look)
    judge_policy(look)
    judge_space(look)
    judge_together(look, core_key)


def judge_settings(look: Look) -> None:
    """What v2 makes of Core's and its agent's settings, and what else on the host may interfere."""
    core = look.core
    assert core is not None  # noqa: S101 - set by `containers`
    gone = look.edits.first_server_gone if look.edits else ()
    look.findings += alias_findings(core, CORE_ALIASES, commented_out=gone)
    if look.agent is not None:
        look.findings += alias_findings(look.agent, AGENT_ALIASES)
    if look.settings is not None:
        look.findings += host_findings(look.settings)
        if version_of(look.version or "0.0.0") and (look.version or "1").startswith("1."):
            look.findings += setting_findings(core, look.settings)
    for bot in look.containers:
        if bot.running and any(name in bot.image for name in _BOTS):
            look.findings.append(
                warn(
                    "bot",
                    f"{bot.name} ({bot.image}) changes containers by itself: it may re-create Core on the way",
                    f"`docker stop {bot.name}` until the upgrade is over",
                )
            )


def judge_version(look: Look) -> None:
    """Core's version against the target and the oldest version whose files are known."""
    target = version_of(look.fleet.target) or (0, 0, 0)
    now = version_of(re.sub(r"[-+].*", "", look.version))
    if now is None:
        look.findings.append(
            refuse(
                "version-unknown",
                "Core's version is unknown: its log does not reach back to its start, and no API key is given",
                "give an API key of an admin ([core] api_key_env, api_secret_env), or restart Core once",
            )
        )
    elif now > target:
        look.findings.append(
            refuse("target-older", f"Core is {look.version} already, newer than {look.fleet.target}", "raise target")
        )
    elif now < OLDEST_CORE:
        look.findings.append(
            refuse(
                "core-old",
                f"Core {look.version} is older than {'.'.join(map(str, OLDEST_CORE))}",
                "upgrade to 1.19.5 first (same compose files, tag 1.19.5)",
            )
        )


def judge_together(look: Look, core_key: str) -> None:
    """Whether Core's key can be known before its new version runs. `core_key`: known already, where Core is v2."""
    if look.fleet.rollout.mode != TOGETHER or core_key:
        return
    waves = '[rollout] mode = "waves" reads the key once Core runs'
    if not look.version.startswith("1."):
        if look.version != look.fleet.target:
            text = "Core's public key cannot be read, so its agents cannot be switched together with it"
            look.findings.append(refuse("together-key", text, f"give an API key of an admin; or {waves}"))
        return
    if look.settings is not None and look.settings.private_key not in ("", PRIVATE_KEY):
        text = "KOMODO_PRIVATE_KEY is set: v2 Core would not use the key pair that is made for it beforehand"
        look.findings.append(refuse("together-private-key", text, f"take it out; or {waves}"))
    if look.edits is not None and not look.edits.keys_dir:
        text = "Core's keys will be in a named volume: a key pair cannot be laid there before v2 runs"
        look.findings.append(refuse("together-keys-volume", text, f"mount a folder at /config/keys; or {waves}"))


def judge_policy(look: Look) -> None:
    """Whether the way back can be the one that the fleet file wants."""
    wanted = look.fleet.database.rollback == KEEP and look.version not in ("", look.fleet.target)
    if wanted and (why := why_not_kept(look.version)):
        text = f"a rollback as the fleet file wants it will be refused: {why}"
        look.findings.append(warn("rollback-not-kept", text, 'rollback = "restore" in [database]'))


def judge_space(look: Look) -> None:
    """Room for two dumps and for the images."""
    dumps = 2 * (look.database.bytes if look.database else 0) + 64 * 1024**2
    if look.free and look.free < dumps:
        look.findings.append(
            refuse(
                "no-space",
                f"{look.free / _GIB:.1f} GiB free for backups, {dumps / _GIB:.1f} GiB needed (twice the database)",
                f"make room below {look.fleet.core.host.state_dir}, or set state_dir to another disk",
            )
        )
    present = look.edits.images if look.edits else {}
    images = sum(
        look.sizes.get(c.image_id, 0) * 3 // 2
        for c in (look.core, look.agent)
        if c and present.get(c.service) not in look.digests
    )
    if look.docker_free and look.docker_free < images:
        look.findings.append(
            refuse(
                "no-space",
                f"{look.docker_free / _GIB:.1f} GiB free for images, about {images / _GIB:.1f} GiB needed",
                "`docker image prune` on Core's host",
            )
        )
