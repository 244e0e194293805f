"""Findings about Core's host: settings that v2 rejects or reads differently, versions, disk space, bots."""

from __future__ import annotations

import re

from activities.core.survey import CoreSurvey
from komodo.core.containers import refuse, warn
from komodo.core.settings import AGENT_ALIASES, CORE_ALIASES, alias_findings, host_findings, setting_findings
from komodo.core.v1_documents import why_not_kept
from komodo.releases import version_of
from model.fleet.spec import DatabaseRollback, RolloutMode

OLDEST_CORE = (1, 15, 0)
"""The oldest release whose files and settings are known."""
PRIVATE_KEY = "file:/config/keys/core.key"
"""Where v2 Core keeps its key by default."""
_BOTS = ("watchtower", "ouroboros", "renovate", "dockcheck", "tugtainer")
_GIB = 1024**3


def check(survey: CoreSurvey, core_key: str) -> None:
    """Add all findings. `core_key`: Core's public key, where it is v2 already."""
    check_settings(survey)
    check_version(survey)
    check_rollback_policy(survey)
    check_space(survey)
    check_all_at_once(survey, core_key)


def check_settings(survey: CoreSurvey) -> None:
    """Settings of Core and its agent that v2 reads differently, and other software on the host that may interfere."""
    core = survey.core
    assert core is not None  # noqa: S101 - set by `containers`
    gone = survey.edits.first_server_gone if survey.edits else ()
    survey.findings += alias_findings(core, CORE_ALIASES, commented_out=gone)
    if survey.agent is not None:
        survey.findings += alias_findings(survey.agent, AGENT_ALIASES)
    if survey.settings is not None:
        survey.findings += host_findings(survey.settings)
        if version_of(survey.version or "0.0.0") and (survey.version or "1").startswith("1."):
            survey.findings += setting_findings(core, survey.settings)
    for bot in survey.containers:
        if bot.running and any(name in bot.image for name in _BOTS):
            survey.findings.append(
                warn(
                    "bot",
                    f"{bot.name} ({bot.image}) changes containers by itself: it may re-create Core on the way",
                    f"`docker stop {bot.name}` until the upgrade is over",
                )
            )


def check_version(survey: CoreSurvey) -> None:
    """Core's version against the target and the oldest version whose files are known."""
    target = version_of(survey.fleet.target) or (0, 0, 0)
    now = version_of(re.sub(r"[-+].*", "", survey.version))
    if now is None:
        survey.findings.append(
            refuse(
                "version-unknown",
                "Core's version is unknown: its log does not reach back to its start, and no API key is given",
                "give an API key of an admin ([core] api_key_env, api_secret_env), or restart Core once",
            )
        )
    elif now > target:
        survey.findings.append(
            refuse(
                "target-older", f"Core is {survey.version} already, newer than {survey.fleet.target}", "raise target"
            )
        )
    elif now < OLDEST_CORE:
        survey.findings.append(
            refuse(
                "core-old",
                f"Core {survey.version} is older than {'.'.join(map(str, OLDEST_CORE))}",
                "upgrade to 1.19.5 first (same compose files, tag 1.19.5)",
            )
        )


def check_all_at_once(survey: CoreSurvey, core_key: str) -> None:
    """Whether Core's key can be known before its new version runs. `core_key`: the key, where Core is v2 already."""
    if survey.fleet.rollout.mode != RolloutMode.ALL_AT_ONCE or core_key:
        return
    waves = '[rollout] mode = "waves" reads the key once Core runs'
    if not survey.version.startswith("1."):
        if survey.version != survey.fleet.target:
            text = "Core's public key cannot be read, so its agents cannot be switched together with it"
            survey.findings.append(refuse("all-at-once-key", text, f"give an API key of an admin; or {waves}"))
        return
    if survey.settings is not None and survey.settings.private_key not in ("", PRIVATE_KEY):
        text = "KOMODO_PRIVATE_KEY is set: v2 Core would not use the key pair that is created for it in advance"
        survey.findings.append(refuse("together-private-key", text, f"take it out; or {waves}"))
    if survey.edits is not None and not survey.edits.keys_dir:
        text = "Core's keys will be in a volume or an unknown folder: a key pair cannot be stored there before v2 runs"
        survey.findings.append(refuse("together-keys-volume", text, f"mount a folder at /config/keys; or {waves}"))


def check_rollback_policy(survey: CoreSurvey) -> None:
    """Whether the rollback policy of the fleet file is possible."""
    wanted = survey.fleet.database.rollback == DatabaseRollback.KEEP and survey.version not in ("", survey.fleet.target)
    if wanted and (why := why_not_kept(survey.version)):
        text = f"the rollback policy of the fleet file will be refused: {why}"
        survey.findings.append(warn("rollback-not-kept", text, 'rollback = "restore" in [database]'))


def check_space(survey: CoreSurvey) -> None:
    """Disk space for two dumps and for the images."""
    dumps = 2 * (survey.database.bytes if survey.database else 0) + 64 * 1024**2
    if survey.free and survey.free < dumps:
        survey.findings.append(
            refuse(
                "no-space",
                f"{survey.free / _GIB:.1f} GiB free for backups, {dumps / _GIB:.1f} GiB needed (twice the database)",
                f"free disk space below {survey.fleet.core.host.state_dir}, or set state_dir to another disk",
            )
        )
    present = survey.edits.images if survey.edits else {}
    images = sum(
        survey.sizes.get(c.image_id, 0) * 3 // 2
        for c in (survey.core, survey.agent)
        if c and present.get(c.service) not in survey.digests
    )
    if survey.docker_free and survey.docker_free < images:
        survey.findings.append(
            refuse(
                "no-space",
                f"{survey.docker_free / _GIB:.1f} GiB free for images, about {images / _GIB:.1f} GiB needed",
                "`docker image prune` on Core's host",
            )
        )
