"""The plan: what will be done, in which order, bound by one digest. Built by pure code from the facts."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace

from model.facts import CoreFacts, Finding, PlannedEdit, ServerFacts, ServiceFacts, Severity
from model.fleet.spec import EVERY_OTHER, LABEL, Approval, FleetSpec, RolloutMode
from model.text.versions import old_name

RECORDED = "recorded when it was pulled, not verified by the publisher"
"""Origin of a digest that no registry confirmed before the image was pulled."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wave:
    """Servers that are upgraded at the same time. Number 1 is the canary; all at once, it is all of them."""

    number: int
    servers: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What one approval covers."""

    fleet: str
    target: str
    core: CoreFacts
    servers: tuple[ServerFacts, ...]
    """All servers of the fleet file and the agent in Core's own project, those that are already current included."""
    waves: tuple[Wave, ...]
    with_core: tuple[str, ...] = ()
    """Switched right after Core, before the first wave: the agent in Core's own project."""
    mode: RolloutMode = RolloutMode.WAVES
    already_current: tuple[str, ...] = ()
    left_behind: tuple[str, ...] = ()
    not_in_run: tuple[str, ...] = ()
    """Left out of this run by `--limit`, and not seen on the target by Core."""
    offline: tuple[str, ...] = ()
    """Set aside: nothing is planned for them before they return."""
    commands: tuple[str, ...] = ()
    """In order, as shown to the operator."""
    rollback_steps: tuple[str, ...] = ()
    digest: str = ""

    @property
    def findings(self) -> tuple[Finding, ...]:
        """Of Core and of every server."""
        return self.core.findings + tuple(f for s in self.servers for f in s.findings)

    @property
    def refusals(self) -> tuple[Finding, ...]:
        """Findings that forbid the upgrade."""
        return tuple(f for f in self.findings if f.severity is Severity.REFUSE)

    @property
    def warnings(self) -> tuple[Finding, ...]:
        """Findings that an approver must know."""
        return tuple(f for f in self.findings if f.severity is Severity.WARN)

    @property
    def old(self) -> str:
        """What runs before, in sentences: "v1", the version of a v2 ("2.0.0"), or "the old version"."""
        left = [s.version for s in self.servers if not s.current and s.version]
        return old_name(*([] if self.core.current else [self.core.version]), *left)

    def server(self, name: str) -> ServerFacts:
        """Facts of one server. Raises KeyError."""
        for facts in self.servers:
            if facts.name == name:
                return facts
        raise KeyError(name)


def with_ignored(fleet: FleetSpec, plan: Plan) -> Plan:
    """The plan without the warnings that the fleet file ignores: they become notes with the reason. A refusal stays."""

    def noted(findings: tuple[Finding, ...]) -> tuple[Finding, ...]:
        return tuple(
            replace(one, severity=Severity.INFO, ignored=fleet.ignored_because)
            if one.severity is Severity.WARN and one.code in fleet.ignored_checks
            else one
            for one in findings
        )

    servers = tuple(replace(facts, findings=noted(facts.findings)) for facts in plan.servers)
    return replace(plan, core=replace(plan.core, findings=noted(plan.core.findings)), servers=servers)


def bind(plan: Plan) -> Plan:
    """The same plan with its digest, which covers every change but no mere observations (times, free space)."""
    core = plan.core
    bound: dict[str, object] = {
        "fleet": plan.fleet,
        "target": plan.target,
        "core": [core.version, [_edit(e) for e in core.edits], asdict(core.core) if core.core else None],
        "database": [core.database.image, core.database.image_id] if core.database else None,
        "agent": asdict(core.agent) if core.agent else None,
        "servers": [
            [
                s.name,
                s.version,
                s.binary,
                s.binary_sha256,
                s.artifact_sha256,
                list(s.config_paths),
                [_edit(e) for e in s.edits],
                asdict(s.container.service) if s.container else None,
                *([s.connect_to] if s.connect_to else []),
            ]
            for s in plan.servers
        ],
        "waves": [list(w.servers) for w in plan.waves],
        "with_core": list(plan.with_core),
        "left_behind": list(plan.left_behind),
        **({"not_in_run": list(plan.not_in_run)} if plan.not_in_run else {}),
        **({"offline": list(plan.offline)} if plan.offline else {}),
    }
    if plan.mode == RolloutMode.ALL_AT_ONCE:
        bound["mode"] = plan.mode
    text = json.dumps(bound, sort_keys=True, separators=(",", ":"))
    return replace(plan, digest=hashlib.sha256(text.encode()).hexdigest()[:16])


def _edit(edit: PlannedEdit) -> list[str]:
    return [edit.path, edit.base_sha256, edit.result_sha256]


def not_in_run(fleet: FleetSpec, core: CoreFacts) -> tuple[str, ...]:
    """Servers that `--limit` left out, without those that an earlier run has upgraded as far as Core sees."""
    current = [s.name for s in core.servers if s.state == "Ok" and s.version == fleet.target]
    return tuple(name for name in fleet.not_in_run if name not in current)


def waves(fleet: FleetSpec, names: tuple[str, ...]) -> tuple[Wave, ...]:
    """Canary first, then waves of the configured size, in the fleet file's order; no wave mixes groups of `order`."""
    rollout = fleet.rollout
    each = rollout.approve == Approval.EACH_SERVER
    share = rollout.wave.endswith("%")
    size = max(1, len(names) * int(rollout.wave[:-1]) // 100) if share else int(rollout.wave)
    if each:
        size = 1
    canary = min(1 if each else rollout.canary, len(names))
    first, groups = _grouped(fleet, names, canary)
    parts = [first] if first else []
    parts += [group[i : i + size] for group in groups for i in range(0, len(group), size)]
    return tuple(Wave(number=i, servers=part) for i, part in enumerate(parts, start=1))


def _grouped(
    fleet: FleetSpec, names: tuple[str, ...], canary: int
) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]:
    """The canary, and the other servers by the entries of `order`.

    The canary is the first servers of the fleet file. One of them that `order` names goes where it says; then the
    canary is completed by the servers that come first.
    """
    order = fleet.rollout.order or (EVERY_OTHER,)
    rest = order.index(EVERY_OTHER) if EVERY_OTHER in order else len(order)
    labels = {server.name: server.labels for server in fleet.servers}
    place = {name: _entry(order, name, labels.get(name, ())) for name in names}
    kept = tuple(name for name in names[:canary] if place[name] is None)
    ordered = sorted((n for n in names if n not in kept), key=lambda n: rest if (at := place[n]) is None else at)
    first = (*kept, *ordered[: canary - len(kept)])
    others = [name for name in ordered if name not in first]
    groups = itertools.groupby(others, key=lambda n: rest if (at := place[n]) is None else at)
    return first, tuple(tuple(group) for _, group in groups)


def _entry(order: tuple[str, ...], name: str, labels: tuple[str, ...]) -> int | None:
    """The first entry that names this server or a label of it; None: no entry does."""
    matching = (name, *(f"{LABEL}{label}" for label in labels))
    return next((i for i, entry in enumerate(order) if entry in matching), None)


def record_images(plan: Plan, digests: Mapping[str, str]) -> Plan:
    """The plan with the digests of images that were pulled, where none was known before. Not bound again."""

    def recorded(service: ServiceFacts | None) -> ServiceFacts | None:
        digest = digests.get(service.target_image, "") if service else ""
        if service is None or service.target_digest or not digest:
            return service
        return replace(service, target_digest=digest, target_digest_source=RECORDED)

    def on_server(facts: ServerFacts) -> ServerFacts:
        service = recorded(facts.container.service) if facts.container else None
        if facts.container is None or service is None:
            return facts
        return replace(facts, container=replace(facts.container, service=service))

    core = replace(plan.core, core=recorded(plan.core.core), agent=recorded(plan.core.agent))
    return replace(plan, core=core, servers=tuple(on_server(s) for s in plan.servers))
