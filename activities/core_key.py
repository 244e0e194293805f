"""Core's key pair before v2 Core runs, so that every agent can be switched with Core.

v2 Core takes a PKCS#8 PEM at `keys/core.key` as it is (v2.3.2:lib crates/pki), so the pair may be made beforehand. Its
private part is made on Core's host, by `km key generate` of the image that will use it, and never leaves that host.
"""

from __future__ import annotations

from temporalio import activity

from activities.core_access import facts_in, folder_of, job, need, script
from activities.core_survey import Look
from hosts.pool import Hosts
from komodo.project import refuse
from komodo.public_key import from_pem, validate
from model.errors import CommandFailed, HostError, KeyRejected
from model.facts import Finding
from model.fleet import TOGETHER
from model.steps import CoreKey, CoreStep

_NOT_MADE, _NOT_KNOWN = 78, 79
_BY_HAND = "openssl pkey -in core.key -pubout -out core.pub"
_LEFT = "the old version runs, nothing was changed"


async def pair_findings(look: Look) -> list[Finding]:
    """A pair that is there before v2 runs, and cannot be pinned; nothing unless agents are switched with Core."""
    keys = look.edits.keys_dir if look.edits else ""
    if look.fleet.rollout.mode != TOGETHER or not keys or not look.version.startswith("1."):
        return []
    said = facts_in(await look.host.run(script("look_at_key_pair.sh"), keys))
    by_hand = f"who made it? By hand, in {keys}: {_BY_HAND}; or move both files away"
    if said.get("private") == ["empty"]:
        text = f"{keys}/core.key is empty: Core would use a private key that everybody knows"
        return [refuse("together-key-pair", text, "remove it")]
    if not said.get("private"):
        return []
    if not said.get("public"):
        return [refuse("together-key-pair", f"there is {keys}/core.key, but no core.pub beside it", by_hand)]
    try:
        public = from_pem("\n".join(said["public"]))
    except KeyRejected as error:
        return [refuse("together-key-pair", f"{keys}/core.pub: {error.what}", by_hand)]
    # Without openssl there, or for a form that it does not read, nothing is known.
    belongs = "\n".join(said.get("belongs", []))
    if "PUBLIC KEY" in belongs and from_pem(belongs) != public:
        text = f"{keys}/core.pub does not belong to the core.key beside it: agents would pin what Core does not have"
        return [refuse("together-key-pair", text, by_hand)]
    return []


class CoreKeys:
    """Makes the pair once, or finds it."""

    def __init__(self, hosts: Hosts) -> None:
        self._hosts = hosts

    @activity.defn
    async def stage_core_key(self, step: CoreStep) -> CoreKey:
        """The public part of the key that v2 Core will have. A repeated call, and a later run, finds the same pair.

        Raises KeyRejected where a private key is there without its public part, HostError where none can be laid down.
        """
        facts, name = step.facts, step.fleet.core.host.name
        if facts.public_key:
            return CoreKey(public_key=validate(facts.public_key), sources=(f"Core {facts.version} before its upgrade",))
        if not facts.keys_dir:
            raise HostError(
                "Core's keys are in a named volume: no pair can be laid there beforehand",
                host=name,
                left=_LEFT,
                cure='keys_mount = "bind", or [rollout] mode = "waves"',
            )
        host = await self._hosts.get(step.fleet.core.host)
        image = need(facts.core).target_image
        try:
            done = await job(
                host, step, "stage_core_key", "stage_core_key.sh", folder_of(step), facts.keys_dir, image
            )  # fmt: skip
        except CommandFailed as error:
            if error.code == _NOT_KNOWN:
                raise KeyRejected(
                    f"{error.tail or error.what}: agents cannot be given the public part of that key",
                    host=name,
                    left=_LEFT,
                    cure=f"make it in {facts.keys_dir}: {_BY_HAND}; or move core.key away and retry",
                ) from None
            if error.code == _NOT_MADE:
                raise HostError(
                    f"Core's key pair could not be made: {error.tail or error.what}",
                    host=name,
                    left=_LEFT,
                    cure=f'`docker run --rm {image} km --version` on Core\'s host; or [rollout] mode = "waves"',
                ) from None
            raise
        said = facts_in(done)
        return CoreKey(
            public_key=from_pem("\n".join(said["public"])),
            sources=(f"{said['place'][0]}, {said['how'][0]} before Core's switch",),
        )
