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


# --- a plan that was approved as a file -------------------------------------------------------------------------------

OTHER_PLAN = "other-plan"
"""Code of the finding that a host differs from the plan file of `start --plan`."""
_CORE, _FLEET = "core", "fleet"
_ANYTHING = ""
"""A part that was unknown when the plan was made: the digest of an image that no registry reported."""
_ABSENT = "-"
_MOST_DIFFS, _MOST_LINES = 10, 40
"""Hosts whose new diff is in a finding, and lines of each: the findings of a fleet have to fit into one payload."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ApprovedHost:
    """What was planned for one host, as digests by part."""

    name: str
    """A server, or "core"."""
    parts: dict[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class ApprovedPlan:
    """What a run may do that was started with a plan file. Digests only, so a file brings nothing else into a run."""

    digest: str
    target: str
    mode: RolloutMode
    order: tuple[str, ...]
    """Servers as they are upgraded."""
    hosts: tuple[ApprovedHost, ...]
    """Without servers that were offline: nothing was planned for them."""


def approved(plan: Plan) -> ApprovedPlan:
    """What an approval of this plan covers."""
    servers = (s for s in plan.servers if s.name not in plan.offline)
    return ApprovedPlan(
        digest=plan.digest,
        target=plan.target,
        mode=plan.mode,
        order=_order(plan),
        hosts=(
            ApprovedHost(name=_CORE, parts=_core_parts(plan.core)),
            *(ApprovedHost(name=s.name, parts=_server_parts(s)) for s in servers),
        ),
    )


def refuse_unapproved(plan: Plan, allowed: ApprovedPlan) -> Plan:
    """The plan with a finding that refuses for each host where it differs from the approved one.

    A host that is on the target needs nothing, and one that is offline is compared when it returns.
    """
    hosts = {host.name: host for host in allowed.hosts}
    texts = _fleet_differences(plan, allowed)
    diffs = _MOST_DIFFS
    core = replace(plan.core, findings=tuple(f for f in plan.core.findings if f.code != OTHER_PLAN))
    found = [_other_plan(_FLEET, text) for text in texts]
    if not core.current and (why := _differences(hosts.get(_CORE), _core_parts(core))):
        found.append(_other_plan(_CORE, why, core.edits))
        diffs -= 1
    servers = []
    for server in plan.servers:
        facts = server
        if server.name not in plan.offline:
            facts = refuse_unapproved_server(server, allowed, with_diff=diffs > 0)
            diffs -= facts is not server
        servers.append(facts)
    return replace(plan, core=replace(core, findings=(*core.findings, *found)), servers=tuple(servers))


def refuse_unapproved_server(facts: ServerFacts, allowed: ApprovedPlan, *, with_diff: bool = True) -> ServerFacts:
    """The same for one server. Unchanged if it is as approved."""
    findings = tuple(f for f in facts.findings if f.code != OTHER_PLAN)
    if len(findings) < len(facts.findings):
        facts = replace(facts, findings=findings)
    host = next((host for host in allowed.hosts if host.name == facts.name), None)
    if facts.current or not (why := _differences(host, _server_parts(facts))):
        return facts
    return replace(facts, findings=(*findings, _other_plan(facts.name, why, facts.edits if with_diff else ())))


def _differences(host: ApprovedHost | None, parts: dict[str, str]) -> str:
    if host is None:
        return "it is not in the approved plan, or was offline when that was made"
    names = dict.fromkeys((*parts, *host.parts))
    other = [name for name in names if host.parts.get(name, _ABSENT) not in (parts.get(name, _ABSENT), _ANYTHING)]
    return f"it differs from the approved plan in: {', '.join(other)}" if other else ""


def _fleet_differences(plan: Plan, allowed: ApprovedPlan) -> list[str]:
    known = {s.name for s in plan.servers}
    missing = [host.name for host in allowed.hosts if host.name not in known and host.name != _CORE]
    order = _order(plan)
    texts = [f"the approved plan also has {', '.join(missing)}"] if missing else []
    if (plan.target, plan.mode) != (allowed.target, allowed.mode):
        texts.append(f"the approved plan is for {allowed.target} in mode {allowed.mode}")
    approved_order = [name for name in allowed.order if name in order]
    if approved_order != [name for name in order if name in allowed.order]:
        texts.append(f"the approved order is another one: {', '.join(approved_order)}")
    return texts


def _order(plan: Plan) -> tuple[str, ...]:
    return (*plan.with_core, *(name for wave in plan.waves for name in wave.servers))


def _other_plan(subject: str, why: str, edits: tuple[PlannedEdit, ...] = ()) -> Finding:
    lines = [line for edit in edits for line in edit.diff.splitlines()]
    shown = lines[:_MOST_LINES] + (["…"] if len(lines) > _MOST_LINES else [])
    hint = "`komodo-upgrade plan -o plan.json` shows the new plan and writes it, to be approved again"
    hint = "\n".join((f"{hint}; its edits are now:", *shown)) if shown else hint
    return Finding(code=OTHER_PLAN, severity=Severity.REFUSE, subject=subject, text=why, hint=hint)


def _core_parts(core: CoreFacts) -> dict[str, str]:
    database = core.database
    return {
        "version": _short(core.version),
        **_edit_parts(core.edits),
        "database": _short([database.image, database.image_id] if database else None),
        **_service_parts("Core's service", core.core),
        **_service_parts("the agent's service", core.agent),
    }


def _server_parts(facts: ServerFacts) -> dict[str, str]:
    return {
        "version": _short(facts.version),
        "binary": _short([facts.binary, facts.binary_sha256]),
        "new binary": _short(facts.artifact_sha256) if facts.artifact_sha256 else _ANYTHING,
        "config files": _short(list(facts.config_paths)),
        **_edit_parts(facts.edits),
        "connection": _short(facts.connect_to),
        **_service_parts("service", facts.container.service if facts.container else None),
    }


def _edit_parts(edits: tuple[PlannedEdit, ...]) -> dict[str, str]:
    """By file, before and after, so that a refusal names the file."""
    return {f"{e.path} (Core's key)" if e.with_key else e.path: _short(_edit(e)) for e in edits}


def _service_parts(name: str, service: ServiceFacts | None) -> dict[str, str]:
    """The digest of the new image may become known later; then it is compared by itself."""
    image = service.target_digest if service else ""
    plain = replace(service, target_digest="", target_digest_source="") if service else None
    return {
        name: _short(asdict(plain) if plain else None),
        f"{name}: new image": _short(image) if image else _ANYTHING,
    }


def _short(value: object) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


# --- waves ------------------------------------------------------------------------------------------------------------


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
