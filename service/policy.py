"""Which policy a worker follows, and how the embedded worker's policy is written."""

from __future__ import annotations

import os
from pathlib import Path

from hosts.policy import ENV, Policy, policy_file
from model.fleet.spec import FleetSpec
from model.worker_policy import ANY, NO_COMMANDS, parse, render
from service.codec.key_ring import VARIABLES


def of_worker(*, encrypting: bool) -> Policy:
    """The policy file that the environment names; else a safe default. `encrypting`: there is a key ring."""
    name = os.environ.get(ENV)
    if name:
        return Policy(file=Path(name).expanduser().absolute())
    return Policy(ANY if encrypting else NO_COMMANDS)


def warning(*, encrypting: bool) -> str:
    """The worker's warning at its start about a missing key ring; empty: it has one."""
    if encrypting:
        return ""
    return (
        f"no key ring ({', '.join(VARIABLES)}): anyone who reaches this Temporal can start upgrades and answer "
        f"gates, so commands of fleet files run only if the policy in {ENV} allows them"
    )


def allow_fleet(path: Path, fleet: FleetSpec) -> None:
    """Let the embedded worker use what this fleet file of its owner refers to."""

    def with_fleet(text: str) -> str:
        before = parse(text, str(path))
        after = before.with_fleet(fleet)
        return render(after) if after != before or not text else text

    policy_file(path).replace(with_fleet)
