"""Core's run folder: saved files, instructions for a rollback without this tool, and the dumps of the database."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import PurePosixPath

from temporalio import activity

from activities.core.access import (
    container,
    facts_in,
    inspect,
    job,
    parse_time,
    read_settings,
    script,
)
from activities.core.files import read_and_edit, require_planned
from activities.database import dump_tools
from activities.fleet import manifest
from hosts.exec.script import standalone
from hosts.host import Host, RemoteFile
from hosts.ssh.pool import Hosts
from komodo.core.containers import IMAGE_PIN, Container, compose_command, without_environment
from komodo.core.settings import CoreSettings, config_paths
from komodo.files.edit_set import ProjectEdit
from model.errors import HostError, PlanChanged
from model.facts import Backup, CoreInstallation, DumpMethod, SavedFile
from model.steps import CoreStep


class CoreBackup:
    """Saves what a rollback needs, before anything changes."""

    def __init__(self, hosts: Hosts) -> None:
        self._hosts = hosts

    @activity.defn
    async def back_up_core(self, step: CoreStep) -> Backup:
        """Save Compose, env and config files, container facts and restore.sh; place copies with the guide's names next
        to the edited files.

        Raises PlanChanged when a file is not the planned one.
        """
        host = await self._hosts.get(step.fleet.core.host)
        facts = step.facts
        core = await container(host, facts.core.container)
        data_container = (await inspect(host, facts.database.container)).get(facts.database.container)
        settings = await read_settings(host, core)
        edits = await read_and_edit(host, facts, step.fleet.target, step.fleet.core.keys_mount)
        require_planned(host.spec.name, edits, facts)
        files = await _files(host, facts, core, edits)
        names = plain_names(f.path for f in files)
        folder = step.folder
        edited = {e.path for e in edits.files if e.changed} | ({edits.pin.path} if edits.pin else set())
        to_restore = [(f, names[f.path]) for f in files if f.path in edited]
        parts = {
            "restore.sh": restore_script(),
            "restore.list": _restore_list(step, core, data_container, settings, to_restore),
            "manifest.json": _manifest(step, files, names),
            "README.txt": _readme(step, folder),
            "servers.txt": "".join(f"{s.name}\t{s.address}\n" for s in facts.servers),
            "core-inspect.json": without_environment(await _inspected(host, facts)),
        }
        data = b"".join(t.encode() for t in parts.values())
        args = [w for n, t in parts.items() for w in ("part", str(len(t.encode())), n)]
        for kind, service in (("core", facts.core), ("periphery", facts.agent)):
            if service and service.keys_to:
                args += ["pair", service.container, kind]
        for file in files:
            args += ["file", file.path, file.sha256, names[file.path], "yes" if file.path in edited else "no"]
        suffix = guide_suffix(facts.version)
        fill = script("core/back_up_core.sh", *args, folder=folder, suffix=suffix)
        done = await job(host, step, "back_up_core", fill, data=data)
        output = facts_in(done)
        return Backup(
            host=host.spec.name,
            folder=folder,
            files=tuple(_saved(line, suffix) for line in output.get("saved", [])),
            restore_command=f"sudo sh {folder}/restore.sh",
            taken_at=parse_time(output["taken"][0]),
            notes=(f"Core and its database: {folder}/restore.sh (--dry-run shows what it would do)",),
        )


async def _inspected(host: Host, facts: CoreInstallation) -> str:
    names = [s.container for s in (facts.core, facts.agent) if s]
    names.append(facts.database.container)
    return (await host.run(script("core/inspect_containers.sh", *names))).text


async def _files(host: Host, facts: CoreInstallation, core: Container, edits: ProjectEdit) -> list[RemoteFile]:
    """Compose files, env files and Core's own config file."""
    project = facts.project
    wanted = (*project.files, *(e.path for e in edits.files), *config_paths(core))
    found: list[RemoteFile] = []
    for path in dict.fromkeys(wanted):
        file = await host.read(path)
        if file is not None:
            found.append(file)
        elif path in project.files:
            raise PlanChanged(f"{path} is gone", host=host.spec.name, hint="plan again: komodo-upgrade start")
    return found


def plain_names(paths: Iterable[str]) -> dict[str, str]:
    """A plain file name for each path; the second of two equal names is prefixed with its folder's name."""
    names: dict[str, str] = {}
    for path in paths:
        pure = PurePosixPath(path)
        name = pure.name
        folder = pure.parent
        while name in names.values() and folder.name:
            name, folder = f"{folder.name}-{name}", folder.parent
        while name in names.values():
            name = f"_{name}"
        names[path] = name
    return names


def guide_suffix(version: str) -> str:
    """What the upgrade guide appends to a saved file's name: `.bak_v1`, and `.bak_v2.0.0` from v2 on."""
    return ".bak_v1" if version.startswith("1.") else f".bak_v{version}"


def _saved(line: str, suffix: str) -> SavedFile:
    path, saved_as, digest, copy = [*line.split("\t"), "", "", ""][:4]
    note = ""
    if copy and copy != path + suffix:
        old, new = f"{PurePosixPath(path).name}{suffix}", PurePosixPath(copy).name
        note = f"an older {old} was kept; the copy of this run is {new}"
    return SavedFile(path=path, saved_as=saved_as, sha256=digest, guide_name=copy, note=note)


def restore_script() -> str:
    """restore.sh as one file: the shared fragments are inserted."""
    return standalone("komodo.sh", "core/restore_core.sh")


def image_pin(step: CoreStep, what: str) -> str:
    """Name of the container that holds one image: `core-old`, `core-new`, `agent-old`, `agent-new`."""
    return f"{IMAGE_PIN}{step.op.change.lower()}-{what}"


def _restore_list(
    step: CoreStep,
    core: Container,
    found: Container | None,
    settings: CoreSettings,
    saved: list[tuple[RemoteFile, str]],
) -> str:
    """What restore.sh reads: one `KEY<TAB>VALUE` per line. It names where credentials are and contains none."""
    facts = step.facts
    project = facts.project
    service = facts.core
    known = facts.database
    login = settings.database
    if login is None:
        raise HostError("Core's database settings can no longer be read", host=step.fleet.core.host.name)
    words = compose_command(facts.project)
    lines = [
        ("version", facts.version),
        ("target", step.fleet.target),
        ("compose", " ".join(project.command)),
        ("project", project.name),
        ("directory", project.directory),
        *(("compose_file", f) for f in project.files),
        ("env_file", project.env_file),
        ("project_directory", project.directory if "--project-directory" in words else ""),
        ("core_service", service.service),
        ("core_container", service.container),
        ("core_image", service.image),
        ("core_image_id", service.image_id),
        ("core_pair", "inside" if service.keys_to else ""),
        ("db_container", known.container),
        ("db_name", login.name),
        ("db_port", str(login.port)),
        ("db_uri", login.uri()),
        ("db_user", login.username),
        ("db_auth_source", login.auth_source or "admin"),
        ("db_password_variable", settings.sources.get("password", "")),
        ("db_password_file", core.host_path(settings.password_file) if settings.password_file else ""),
        ("db_uri_variable", settings.sources.get("uri", "")),
        ("db_mechanism", login.mechanism),
        ("db_network", dump_tools.network_of(core, found) if dump_tools.method(facts) is DumpMethod.KM else ""),
        ("db_host", f"{login.host}:{login.port}"),
    ]
    if facts.agent:
        lines += [
            ("agent_service", facts.agent.service),
            ("agent_container", facts.agent.container),
            ("agent_image", facts.agent.image),
            ("agent_image_id", facts.agent.image_id),
            ("agent_pair", "inside" if facts.agent.keys_to else ""),
        ]
    lines += [("saved", f"{f.sha256}\t{name}\t{f.path}") for f, name in saved]
    return "".join(f"{k}\t{v}\n" for k, v in lines if v)


def _manifest(step: CoreStep, files: list[RemoteFile], names: dict[str, str]) -> str:
    facts = step.facts
    services = [s for s in (facts.core, facts.agent) if s]
    return (
        json.dumps(
            {
                "format": manifest.FORMAT,
                "made_by": "komodo-upgrade",
                "folder": step.folder,
                "restore_command": f"sudo sh {step.folder}/restore.sh",
                "taken_at": datetime.now(UTC).isoformat(timespec="seconds"),
                "fleet": step.fleet.name,
                "change": step.op.change,
                "from": facts.version,
                "to": step.fleet.target,
                "project": facts.project.name,
                "compose_files": facts.project.files,
                "images": [
                    {"service": s.service, "image": s.image, "id": s.image_id, "digest": s.repo_digest}
                    for s in services
                ],
                "database": {"container": facts.database.container, "name": facts.database.name},
                "files": [
                    {
                        "path": f.path,
                        "saved": f"files/{names[f.path]}",
                        "sha256": f.sha256,
                        "mode": f.mode,
                        "owner": f.owner,
                    }
                    for f in files
                ],
                "servers": [{"name": s.name, "address": s.address, "enabled": s.enabled} for s in facts.servers],
                "facts": manifest.facts_of(facts),
            },
            indent=2,
        )
        + "\n"
    )


def _readme(step: CoreStep, folder: str) -> str:
    return (
        f"Komodo Core of the fleet {step.fleet.name}, saved before its upgrade from {step.facts.version} to "
        f"{step.fleet.target}\n(change {step.op.change}).\n\n"
        "files/            compose, env and config files as they were (they hold secrets; this folder is root's)\n"
        "dumps/            the database: before (v1 running), final (v1 stopped), pre_rollback (v2 stopped)\n"
        "core.key          Core's private key, once v2 has made it\n"
        "keys-inside/      key pairs that were inside of containers, if there were any\n"
        "servers.txt       names and addresses of all servers\n"
        "core-inspect.json what docker knew of the containers, without their environment\n"
        "manifest.json     digests, image ids\n"
        "restore.list      where everything belongs\n\n"
        "To go back to the old version by hand, as root, with nothing else installed:\n\n"
        f"    sh {folder}/restore.sh --dry-run\n"
        f"    sh {folder}/restore.sh\n\n"
        "What was changed in Komodo since the upgrade is lost by that. Afterwards run the restore.sh of each server\n"
        "(same folder name, on that server).\n\n"
        "Once nobody wants to go back any more, remove this folder, and the containers that hold the images:\n\n"
        f"    docker rm $(docker ps -aq --filter name={image_pin(step, '')})\n"
    )
