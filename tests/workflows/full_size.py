"""Doubles whose answers are as large as those of real hosts: what repeats between servers repeats, digests differ."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from datetime import timedelta
from typing import Any

from model.facts import Backup, Finding, Install, KnownServer, PlannedEdit, SavedFile, ServerFacts, Severity
from model.run_folders import HostFolders, SavedChange, ScanHost
from model.steps import CoreStep, Proof, ServerStep, StagedAgent, SurveyServer, Switched, VerifyServer
from tests.workflows.doubles import CHANGE, NEW, NOW, OLD, Doubles, core_facts

_CONFIG = "/etc/komodo/periphery.config.toml"
_FOLDER = f"/var/lib/komodo-upgrade/prod/{CHANGE}"
_DIFF_LINES = 40


def digest(*parts: str) -> str:
    return hashlib.sha256("/".join(parts).encode()).hexdigest()


def facts_of(name: str) -> ServerFacts:
    """A systemd agent with one edited file, a long diff and a warning."""
    changed = "\n".join(f"-# {name}: setting {n}\n+# {name}: setting {n}, as v2 reads it" for n in range(_DIFF_LINES))
    edit = PlannedEdit(
        path=_CONFIG,
        kind="periphery-config",
        base_sha256=digest(name, "base"),
        result_sha256=digest(name, "result"),
        diff=f"--- {_CONFIG}\n+++ {_CONFIG}\n@@ -1,40 +1,40 @@\n{changed}\n",
        reasons=("core_public_keys: only this Core may connect", "passkeys: replaced by the key"),
    )
    text = f"the clock of {name} is 3 s ahead; logs of Core and of the agent cannot be compared to the second"
    return ServerFacts(
        name=name,
        install=Install.SYSTEMD,
        reachable=True,
        version=OLD,
        running_version=OLD,
        arch="x86_64",
        os_name="Debian GNU/Linux 12 (bookworm)",
        glibc="2.36",
        openssl3=True,
        free_bytes=40_000_000_000 + len(name),
        clock_ahead=timedelta(seconds=3),
        unit="periphery.service",
        unit_path="/etc/systemd/system/periphery.service",
        binary="/usr/local/bin/periphery",
        binary_sha256=digest("binary"),
        artifact_sha256=digest("artifact"),
        artifact_source="the digest that GitHub shows for the release",
        config_paths=(_CONFIG,),
        edits=(edit,),
        state_place=f"{digest(name, 'machine')[:32]}:/var/lib/komodo-upgrade",
        sources=(
            "binary /usr/local/bin/periphery, from ExecStart of periphery.service",
            f"config {_CONFIG}, from --config-path in ExecStart",
        ),
        findings=(Finding(code="clock", severity=Severity.WARN, subject=name, text=text, hint="install chrony"),),
    )


def backup_of(name: str) -> Backup:
    def saved(path: str, guide: str = "") -> SavedFile:
        return SavedFile(path=path, saved_as=f"{_FOLDER}/files{path}", sha256=digest(name, path), guide_name=guide)

    return Backup(
        host=name,
        folder=_FOLDER,
        files=(
            saved("/usr/local/bin/periphery"),
            saved(_CONFIG, f"{_CONFIG}.bak_v1"),
            saved("/etc/systemd/system/periphery.service"),
        ),
        restore_command=f"sudo sh {_FOLDER}/restore.sh",
        taken_at=NOW,
    )


class FullSize(Doubles):
    """All activities of the contract, for a fleet of so many servers named as in `doubles.fleet`."""

    def __init__(self, servers: int) -> None:
        super().__init__()
        names = [f"web-{number}" for number in range(1, servers + 1)]
        known = tuple(
            KnownServer(
                name=name, id=digest(name)[:24], address=f"http://{name}.example.net:8120", enabled=True, state="Ok",
                version=OLD,
            )
            for name in names
        )  # fmt: skip
        self.core = replace(core_facts(), servers=known)
        self._special = {
            "back_up_server": self._back_up,
            "stage_server": _stage,
            "switch_server": lambda _: _switched(),
            "verify_server": _prove,
        }

    async def _do(self, name: str, given: Any, usual: Any) -> Any:
        return await super()._do(name, given, self._special.get(name, usual))

    def _survey(self, survey: SurveyServer) -> ServerFacts:
        name = survey.server.name
        return self.servers.get(name) or facts_of(name)

    def _back_up(self, step: CoreStep | ServerStep) -> Backup:
        return backup_of(step.op.target)

    def _folders(self, ask: ScanHost) -> HostFolders:
        """The run folder of an upgrade that is in place."""
        name = ask.server.name if ask.server else "core"
        saved = SavedChange(
            change=CHANGE,
            folder=_FOLDER,
            in_place=True,
            state="in place since 2026-11-23 22:20:00 UTC",
            name=name,
            version=OLD,
            target=NEW,
            taken_at=NOW,
            bytes=90_000_000,
            backup=backup_of(name),
            server=facts_of(name) if ask.server else None,
            core=None if ask.server else self.core,
        )
        return HostFolders(name=name, changes=(saved,), running=NEW)


def _stage(step: ServerStep) -> StagedAgent:
    source = f"downloaded by the host from https://github.com/moghtech/komodo/releases/download/v{NEW}/periphery-x86_64"
    return StagedAgent(path=f"{_FOLDER}/staged/periphery", sha256=digest("artifact"), version=NEW, source=source)


def _switched() -> Switched:
    lines = (
        f"2026-11-23T22:21:07.114Z  INFO periphery: Komodo Periphery version: v{NEW}",
        "2026-11-23T22:21:07.115Z  INFO periphery: loaded config: core_public_keys: 1, passkeys: 0",
        "2026-11-23T22:21:07.211Z  INFO periphery::api: Komodo Periphery listening on https://[::]:8120",
    )
    port = timedelta(seconds=2.114)
    return Switched(version=NEW, invocation=digest("inv")[:32], started_at=NOW, port_downtime=port, lines=lines)


def _prove(check: VerifyServer) -> Proof:
    line = f"2026-11-23T22:21:12.471Z  INFO periphery::connection: Logged in to Komodo Core at {check.server.name}"
    return Proof(by_core=True, line=line, confirmed_at=NOW, unmanaged=timedelta(seconds=7.5))
