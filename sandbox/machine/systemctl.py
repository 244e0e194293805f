"""The stand-ins for systemctl, journalctl and systemd-run, in the words and formats of systemd 252."""

from __future__ import annotations

from datetime import UTC, datetime

from sandbox.machine.call import Call, options
from sandbox.machine.systemd import Service, Systemd, full_name

_CHANGES = frozenset({"start", "stop", "restart", "try-restart", "daemon-reload", "enable", "disable", "reset-failed"})


def _timestamp(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%a %Y-%m-%d %H:%M:%S UTC") if at else ""


async def systemctl(call: Call) -> int:
    """`systemctl VERB [UNIT…]`."""
    found, words = options(call.argv, "-p --property -P -n -t --type --state")
    manager = call.host.systemd
    verb, names = (words[0] if words else ""), words[1:]
    if verb in _CHANGES and not call.root:
        verb_text = "reload daemon" if verb == "daemon-reload" else f"{verb} {full_name(names[0]) if names else ''}"
        call.err(f"Failed to {verb_text.strip()}: Interactive authentication required.\n")
        return 1
    if verb == "daemon-reload":
        manager.reload()
        return 0
    if verb == "show":
        return _show(call, manager, names, found)
    if verb == "cat":
        return _cat(call, manager, names)
    code = 0
    for name in names:
        code = await _one(call, manager, verb, full_name(name), found) or code
    return code


async def _one(call: Call, manager: Systemd, verb: str, name: str, found: dict[str, list[str]]) -> int:
    service = manager.find(name)
    quiet = "--quiet" in found or "-q" in found
    if service is None:
        if verb in {"is-active", "is-enabled", "is-failed"}:
            missing = "inactive" if verb != "is-enabled" else ""
            if missing and not quiet:
                call.out(f"{missing}\n")
            elif not missing:
                call.err(f"Failed to get unit file state for {name}: No such file or directory\n")
            return 3 if verb == "is-active" else 1
        call.err(f"Failed to {verb} {name}: Unit {name} not found.\n")
        return 5
    if verb in {"is-active", "is-failed"}:
        if not quiet:
            call.out(f"{service.active}\n")
        return 0 if service.active == {"is-active": "active", "is-failed": "failed"}[verb] else 3
    if verb == "is-enabled":
        state = manager.enabled(service)
        call.out(f"{state}\n")
        return 0 if state != "disabled" else 1
    if verb == "reset-failed":
        service.starts.clear()
        return 0
    return await _change(call, manager, verb, service)


async def _change(call: Call, manager: Systemd, verb: str, service: Service) -> int:
    if manager.stale(service):
        call.err(
            f"Warning: The unit file, source configuration file or drop-ins of {service.name} changed on disk."
            " Run 'systemctl daemon-reload' to reload units.\n"
        )
    if verb in {"stop", "restart"} or (verb == "try-restart" and service.active == "active"):
        await manager.stop(service)
    if verb in {"start", "restart"} and not await manager.start(service):
        call.err(
            f'Job for {service.name} failed.\nSee "systemctl status {service.name}" and'
            f' "journalctl -xeu {service.name}" for details.\n'
        )
        return 1
    if verb in {"enable", "disable"}:
        link = manager.folder / "multi-user.target.wants" / service.name
        link.parent.mkdir(exist_ok=True)
        link.unlink(missing_ok=True)
        if verb == "enable":
            link.symlink_to(service.unit.fragment)
    return 0


def _cat(call: Call, manager: Systemd, names: list[str]) -> int:
    for name in names:
        service = manager.find(name)
        if service is None:
            call.err(f"No files found for {full_name(name)}.\n")
            return 1
        parts = [f"# {p}\n{p.read_text()}" for p in (service.unit.fragment, *service.unit.drop_ins) if p.is_file()]
        call.out("\n".join(parts))
    return 0


def _show(call: Call, manager: Systemd, names: list[str], found: dict[str, list[str]]) -> int:
    wanted = [
        p for value in found.get("-p", []) + found.get("--property", []) + found.get("-P", []) for p in value.split(",")
    ]
    bare = "--value" in found or "-P" in found
    blocks = []
    for name in names or [""]:
        properties = _properties(manager, full_name(name)) if name else _manager_properties(manager)
        lines = [
            value if bare else f"{key}={value}"
            for key, value in properties.items()  # systemd's own order, whatever order was asked for
            if not wanted or key in wanted
        ]
        blocks.append("\n".join(lines) + ("\n" if lines else ""))
    call.out("\n".join(blocks))
    return 0


def _manager_properties(manager: Systemd) -> dict[str, str]:
    booted = manager.booted
    return {
        "Version": "252.38-1~deb12u1",
        "Architecture": "x86-64",
        "KernelTimestamp": _timestamp(booted - 2),
        "UserspaceTimestamp": _timestamp(booted),
        "FinishTimestamp": _timestamp(booted + 3),
        "SystemState": "running",
    }


def _properties(manager: Systemd, name: str) -> dict[str, str]:
    service = manager.find(name)
    if service is None:
        return {
            "Restart": "no", "MainPID": "0", "NRestarts": "0", "Id": name, "Names": name, "LoadState": "not-found",
            "ActiveState": "inactive", "SubState": "dead", "FragmentPath": "", "UnitFileState": "",
            "NeedDaemonReload": "no", "LoadError": f"org.freedesktop.systemd1.NoSuchUnit \"Unit {name} not found.\"",
        }  # fmt: skip
    unit = service.unit
    words = unit.command()
    running = service.active == "active"
    command = (
        f"{{ path={words[0] if words else ''} ; argv[]={' '.join(words)} ; ignore_errors=no ;"
        f" start_time=[{_timestamp(service.started) or 'n/a'}] ;"
        f" stop_time=[{'n/a' if running or not service.started else _timestamp(service.changed)}] ; pid={service.pid} ;"
        f" code={'exited' if service.exit_code else '(null)'} ; status={service.exit_code}/0 }}"
    )
    pairs = {
        "Type": unit.get("Type", "simple"),
        "Restart": unit.get("Restart", "no"),
        "RestartUSec": "100ms",
        "MainPID": str(service.pid),
        "ControlPID": "0",
        "NRestarts": str(service.restarts),
        "ExecMainStartTimestamp": _timestamp(service.started),
        "ExecMainPID": str(service.pid),
        "ExecMainCode": "1" if service.exit_code else "0",
        "ExecMainStatus": str(service.exit_code),
        "ExecStart": command,
        "Environment": " ".join(f"{k}={v}" if " " not in v else f'"{k}={v}"' for k, v in unit.environment().items()),
        "EnvironmentFiles": "\nEnvironmentFiles=".join(
            f"{f.lstrip('-')} (ignore_errors={'yes' if f.startswith('-') else 'no'})"
            for f in unit.all("EnvironmentFile")
        ),
        "WorkingDirectory": unit.get("WorkingDirectory"),
        "User": unit.get("User"),
        "Group": unit.get("Group"),
        "KillMode": "control-group",
        "Id": name,
        "Names": name,
        "Description": unit.get("Description", name),
        "LoadState": "loaded",
        "ActiveState": service.active,
        "FreezerState": "running",
        "SubState": service.sub,
        "FragmentPath": str(unit.fragment),
        "DropInPaths": " ".join(str(p) for p in unit.drop_ins),
        "UnitFileState": manager.enabled(service),
        "UnitFilePreset": "enabled",
        "StateChangeTimestamp": _timestamp(service.changed),
        "ActiveEnterTimestamp": _timestamp(service.started),
        "InactiveEnterTimestamp": "" if running else _timestamp(service.changed),
        "NeedDaemonReload": "yes" if manager.stale(service) else "no",
        "InvocationID": service.invocation,
        "Result": service.result,
    }
    return {k: v for k, v in pairs.items() if v or k not in {"EnvironmentFiles"}}


async def systemd_run(call: Call) -> int:
    """Always fails, as in a container that has the tool and no running systemd."""
    call.err(
        "System has not been booted with systemd as init system (PID 1). Can't operate.\n"
        "Failed to connect to bus: Host is down\n"
    )
    return 1


async def journalctl(call: Call) -> int:
    """`journalctl -u UNIT [-o cat|short|short-iso] [_SYSTEMD_INVOCATION_ID=…] [--since @EPOCH] [-n N]`."""
    found, words = options(call.argv, "-u --unit -o --output --since -S -n --lines --until -U")
    units = found.get("-u", []) + found.get("--unit", [])
    form = (found.get("-o", []) + found.get("--output", []) + ["short"])[0]
    match = next((w.partition("=")[2] for w in words if w.startswith("_SYSTEMD_INVOCATION_ID=")), "")
    since = _since((found.get("--since", []) + found.get("-S", []) + [""])[0])
    count = (found.get("-n", []) + found.get("--lines", []) + [""])[0]
    if not call.root:
        call.err(
            "Hint: You are currently not seeing messages from other users and the system.\n"
            "      Users in groups 'adm', 'systemd-journal' can see all messages.\n"
            "      Pass -q to turn off this notice.\nNo journal files were opened due to insufficient permissions.\n"
        )
        return 1
    journal = call.host.journal
    entries = [e for u in units for e in journal.of(full_name(u), invocation=match, since=since)]
    entries.sort(key=lambda e: e.at)
    if count.isdigit():
        entries = entries[-int(count) :] if int(count) else []
    if not entries and "-q" not in found and "--quiet" not in found:
        call.out("-- No entries --\n")
    for entry in entries:
        if form == "cat":
            call.out(f"{entry.text}\n")
            continue
        shape = "%Y-%m-%dT%H:%M:%S+0000" if form == "short-iso" else "%b %d %H:%M:%S"
        if form == "short-iso-precise":
            shape = "%Y-%m-%dT%H:%M:%S.%f+0000"
        call.out(f"{entry.at.strftime(shape)} {call.host.name} {entry.identifier}[{entry.pid}]: {entry.text}\n")
    return 0


def _since(text: str) -> float:
    if text.startswith("@"):
        return float(text[1:])
    if not text:
        return 0.0
    at = datetime.fromisoformat(text.removesuffix(" UTC").replace("Z", "+00:00"))
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()
