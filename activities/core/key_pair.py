"""Core's key pair before its next version runs: created, so that all agents can be switched with Core, or kept.

v2 Core accepts an existing PKCS#8 PEM at `keys/core.key` (v2.3.2:lib crates/pki), so the pair can be created in
advance. Its private part is created on Core's host, by `km key generate` of the image that will use it, and never
leaves that host.
"""

from __future__ import annotations

from temporalio import activity

from activities.core.access import facts_in, job, log_of, script
from activities.core.survey import CoreSurvey
from hosts.ssh.pool import Hosts
from komodo.compose.mounts import KEYS
from komodo.core.containers import Container, refuse
from komodo.core.key_pair import is_inside, pair_finding
from komodo.core.user import findings
from komodo.logs import last_run, parse_run
from komodo.public_key import from_pem, validate
from model.errors import CommandFailed, HostError, KeyRejected
from model.facts import Finding
from model.fleet.spec import RolloutMode
from model.steps import CoreKey, CoreStep

_NOT_MADE, _NOT_KNOWN = 78, 79
_BY_HAND = "openssl pkey -in core.key -pubout -out core.pub"
_RESIDUE = "the old version runs, nothing was changed"


async def check_writable(survey: CoreSurvey) -> None:
    """Refuse a Core whose user cannot write where v2 will keep its keys. A v2 Core with the mount can."""
    core, edits = survey.core, survey.edits
    if core is None or edits is None or not (survey.version.startswith("1.") or pair_folder(survey, core)):
        return
    owner = mode = "-"
    if edits.keys_dir:
        state_dir = survey.fleet.core.host.state_dir
        done = await survey.host.run(script("fleet/survey_paths.sh", edits.keys_dir, state_dir=state_dir))
        for line in facts_in(done).get("file", []):
            sha256, owner, mode = line.split("\t")[:3]
            if sha256 != "-":
                text = f"{edits.keys_dir} is a file: v2 keeps its keys in a folder of that name"
                hint = f"move it away, or mount another folder: `./core-keys:{KEYS}`"
                survey.findings.append(refuse("keys-not-writable", text, hint))
                return
    survey.findings += findings(core, edits.keys_dir, owner, mode)


async def pair_findings(survey: CoreSurvey) -> list[Finding]:
    """Refuse a key pair that exists before v2 runs and cannot be pinned; only if agents are switched with Core."""
    keys = survey.edits.keys_dir if survey.edits else ""
    if survey.fleet.rollout.mode != RolloutMode.ALL_AT_ONCE or not keys or not survey.version.startswith("1."):
        return []
    output = facts_in(await survey.host.run(script("core/survey_key_pair.sh", keys=keys, pair="core")))
    manual_command = f"who made it? By hand, in {keys}: {_BY_HAND}; or move both files away"
    if output.get("private") == ["empty"]:
        text = f"{keys}/core.key is empty: Core would use a private key that is publicly known"
        return [refuse("all-at-once-key-pair", text, "remove it")]
    if not output.get("private"):
        return []
    if not output.get("public"):
        return [refuse("all-at-once-key-pair", f"there is {keys}/core.key, but no core.pub next to it", manual_command)]
    try:
        public = from_pem("\n".join(output["public"]))
    except KeyRejected as error:
        return [refuse("all-at-once-key-pair", f"{keys}/core.pub: {error.what}", manual_command)]
    # Without openssl on the host, or for a format that it cannot read, the pair is not checked.
    belongs = "\n".join(output.get("belongs", []))
    if "PUBLIC KEY" in belongs and from_pem(belongs) != public:
        text = f"{keys}/core.pub does not belong to the core.key next to it: agents would pin what Core does not have"
        return [refuse("all-at-once-key-pair", text, manual_command)]
    return []


def pair_folder(survey: CoreSurvey, container: Container | None) -> str:
    """Where the upgrade copies the key pair of a v2 container that has it inside; empty: it has none there."""
    if container is None or survey.edits is None or not _has_pair_inside(survey, container):
        return ""
    return survey.edits.key_folders.get(container.service, "")


def _has_pair_inside(survey: CoreSurvey, container: Container) -> bool:
    is_core = container is survey.core
    return is_inside(container, "core" if is_core else "periphery", survey.version if is_core else survey.agent_version)


async def inside_findings(survey: CoreSurvey, core_key: str) -> list[Finding]:
    """Key pairs inside of containers: that they are copied, or why they cannot be. `core_key`: Core's public key."""
    found = []
    for name, container in (("core", survey.core), ("periphery", survey.agent)):
        if container is None or survey.edits is None or not _has_pair_inside(survey, container):
            continue
        key, there = core_key, ""
        if container is survey.agent:
            key = parse_run(last_run(await log_of(survey.host, container.name))).public_key
        folder = pair_folder(survey, container)
        if folder:
            output = facts_in(await survey.host.run(script("core/survey_key_pair.sh", keys=folder, pair=name)))
            there = "\n".join(output.get("belongs") or output.get("public") or "?") if output.get("private") else ""
        found.append(pair_finding(container, name, key, folder, there))
    return found


class CoreKeys:
    """Creates the pair once, or finds it."""

    def __init__(self, hosts: Hosts) -> None:
        self._hosts = hosts

    @activity.defn
    async def stage_core_key(self, step: CoreStep) -> CoreKey:
        """The public part of the key that v2 Core will have. A repeated call, and a later run, finds the same pair.

        Raises KeyRejected where a private key exists without its public part, HostError where no key can be created.
        """
        facts, name = step.facts, step.fleet.core.host.name
        if facts.public_key:
            return CoreKey(public_key=validate(facts.public_key), sources=(f"Core {facts.version} before its upgrade",))
        if not facts.keys_dir:
            raise HostError(
                "Core's keys are in a named volume: no key pair can be stored there in advance",
                host=name,
                residue=_RESIDUE,
                hint='keys_mount = "bind", or [rollout] mode = "waves"',
            )
        host = await self._hosts.get(step.fleet.core.host)
        image = facts.core.target_image
        try:
            make = script("core/stage_core_key.sh", folder=step.folder, keys=facts.keys_dir, image=image)
            done = await job(host, step, "stage_core_key", make)
        except CommandFailed as error:
            if error.code == _NOT_KNOWN:
                raise KeyRejected(
                    f"{error.tail or error.what}: agents cannot be given the public part of that key",
                    host=name,
                    residue=_RESIDUE,
                    hint=f"make it in {facts.keys_dir}: {_BY_HAND}; or move core.key away and retry",
                ) from None
            if error.code == _NOT_MADE:
                raise HostError(
                    f"Core's key pair could not be created: {error.tail or error.what}",
                    host=name,
                    residue=_RESIDUE,
                    hint=f'`docker run --rm {image} km --version` on Core\'s host; or [rollout] mode = "waves"',
                ) from None
            raise
        output = facts_in(done)
        return CoreKey(
            public_key=from_pem("\n".join(output["public"])),
            sources=(f"{output['place'][0]}, {output['how'][0]} before Core's switch",),
        )
