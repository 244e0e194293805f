"""What a step from one version of Komodo to another changes for the documents in Core's database. Pure.

Read in the sources of v1.19.5 to v2.3.2 (client/core/rs/src/entities, lib/database/src/lib.rs) and in the release notes
of v2.3.3. Calls that 2.3 renamed keep their old names as aliases, so there is nothing to report about them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from komodo.actions import OldCall, agent_requests, old_calls, short_lists
from komodo.core.containers import info, warn
from komodo.releases import FIRST_V2, NEWEST_KNOWN, version_of
from model.facts import ComposeProject, Finding

PAGES = (2, 3, 0)
"""Lists hold 50 items from here on, and registry accounts are in a collection of another name."""
_MOST = 5
Documents = Mapping[str, Sequence[Mapping[str, Any]]]


def findings(documents: Documents, version: str, target: str) -> list[Finding]:
    """What changes between the versions that concerns these documents. `version`: of Core today."""
    now, then = version_of(version), version_of(target)
    if now is None or then is None or now >= then:
        return []
    found = []
    if then > NEWEST_KNOWN:
        newest = ".".join(map(str, NEWEST_KNOWN))
        text = (
            f"{target} is newer than {newest}, the newest version that this tool knows: what it changes is not checked"
        )
        found.append(warn("target-not-known", text, "read its release notes, or update this tool"))
    if now < FIRST_V2:
        found += _to_v2(documents)
    if now < PAGES <= then:
        found += _to_pages(documents)
    if then >= PAGES:
        found += _accounts(documents, then)
    return found


def stack_findings(stacks: Iterable[Mapping[str, Any]], project: ComposeProject | None) -> list[Finding]:
    """Komodo's Stacks that may be Core's own project."""
    found = []
    for stack in stacks:
        config = stack.get("config") or {}
        if project is None or (config.get("project_name") or stack.get("name")) != project.name:
            continue
        text = f"the Stack {stack.get('name')} of Komodo has the name of Core's own Compose project, {project.name}"
        same = config.get("files_on_host") and config.get("run_directory") == project.directory
        hint = "do not deploy it while the upgrade runs"
        if not same:
            hint = "if it is Core itself: do not deploy it until its files have the edits"
        found.append(warn("core-is-a-stack", text, hint))
    return found


def _to_v2(documents: Documents) -> list[Finding]:
    found = []
    for name, calls in _calls(documents["actions"], old_calls):
        text = f"the Action {name} will fail in v2 when it is run: {calls}"
        found.append(
            warn("action-v1-style", text, "rewrite it after the upgrade; the report shows which are still to do")
        )
    for name, calls in _calls(documents["actions"], agent_requests):
        text = f"the Action {name} sends requests to port 8120 of an agent, whose API is gone in v2: {calls}"
        found.append(warn("agent-api-used", text, "rewrite it; look for other programs that do the same"))
    if documents["actions"]:
        text = "v2's Actions load npm:mogh_auth_client when they run: without a way to registry.npmjs.org each fails"
        found.append(info("actions-npm", text))
    if not any(_backs_up(p) for p in documents["procedures"]):
        text = "no enabled Procedure runs `Backup Core Database`: Komodo makes no backups of its own"
        found.append(warn("no-backup-procedure", text, "add one in Komodo (it is there by default since v1.19.0)"))
    return found


def _to_pages(documents: Documents) -> list[Finding]:
    found = []
    for name, calls in _calls(documents["actions"], short_lists):
        text = f"the Action {name} reads lists, which hold 50 items from 2.3 on: {calls}"
        hint = "add limit: 0 to these calls; older versions ignore it, so it can be done before the upgrade"
        found.append(warn("action-short-lists", text, hint))
    for builder in documents["builders"]:
        if ((builder.get("config") or {}).get("params") or {}).get("docker_registries"):
            text = f"the Builder {builder.get('name')} loses its docker_registries: 2.3 reads image_registries only"
            found.append(warn("builder-registries", text, "enter them again as image registries after the upgrade"))
    return found


def _accounts(documents: Documents, then: tuple[int, int, int]) -> list[Finding]:
    old, new = documents["old_accounts"], documents["new_accounts"]
    hidden = old if new or then == PAGES else ()
    if not hidden:
        return []
    names = ", ".join(sorted(f"{a.get('username')} of {a.get('domain')}" for a in hidden))
    if then == PAGES:
        text = f"2.3.0 does not find the registry accounts of older versions: {names}"
        return [warn("registry-accounts", text, "set target to 2.3.1 or newer, which does")]
    text = f"registry accounts are in two collections, and 2.3 uses ImageRegistryAccount only: it does not find {names}"
    return [warn("registry-accounts", text, "enter them again in Komodo after the upgrade (Settings, Providers)")]


def _calls(actions: Iterable[Mapping[str, Any]], find: Any) -> Iterable[tuple[str, str]]:
    for action in actions:
        calls: tuple[OldCall, ...] = find(str((action.get("config") or {}).get("file_contents") or ""))
        if calls:
            shown = "; ".join(f"line {c.line}: {c.call}" + (f" ({c.hint})" if c.hint else "") for c in calls[:_MOST])
            yield str(action.get("name")), shown


def _backs_up(procedure: Mapping[str, Any]) -> bool:
    config = procedure.get("config") or {}
    if not config.get("schedule") or not config.get("schedule_enabled", True):
        return False
    for stage in config.get("stages") or []:
        for item in stage.get("executions") or []:
            if item.get("enabled", True) and (item.get("execution") or {}).get("type") == "BackupCoreDatabase":
                return True
    return False
