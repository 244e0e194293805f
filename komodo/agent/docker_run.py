"""The commands that replace an agent's container which was started by `docker run`. Pure.

Nothing in Docker remembers the command itself, so it is written from `docker inspect`. Values of the environment and of
labels may be secrets (a proxy's basic-auth hashes): they are copied on the host, from the old container to a file, and
are in no message.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from komodo.compose.mounts import KEYS
from komodo.compose.reference import for_target

_BY_IMAGE = ("PERIPHERY_CONFIG_PATHS", "PERIPHERY_PRIVATE_KEY", "PATH")
"""Set by v2's image; from a v1 container they would be those of v1's image."""
_SPECIAL = re.compile(r"[.\[\]*^$+?(){}|\\]")
"""Of `grep -E`. Python's own re.escape also escapes a hyphen, of which grep warns."""
_VARIABLES = "{{range .Config.Env}}{{println .}}{{end}}"
_LABELS = r'{{range $name, $value := .Config.Labels}}{{printf "%s=%s\n" $name $value}}{{end}}'


def replacement(entry: Mapping[str, Any], image: Mapping[str, Any], target: str) -> str:
    """The lines to type, from `docker inspect` of the container and of its image (empty: that is not known)."""
    name = str(entry.get("Name", "")).lstrip("/")
    target_image = for_target(str((entry.get("Config") or {}).get("Image", "")), target)
    lines = [f"docker pull {target_image}"]
    copies = (
        ("env", "--env-file", _VARIABLES, _own_variables(entry, image)),
        ("labels", "--label-file", _LABELS, _own_labels(entry)),
    )
    files: list[str] = []
    for ending, flag, template, names in copies:
        if names:
            lines.append(_copy(name, ending, template, names))
            files += [flag, f"{name}.{ending}"]
    old = f"{name}-v1"
    lines.append(f"docker stop {shlex.quote(name)} && docker rename {shlex.quote(name)} {shlex.quote(old)}")
    words = ["docker", "run", "-d", "--name", name, *_options(entry), *files]
    command = _command(entry, image)
    key = 'PERIPHERY_CORE_PUBLIC_KEYS="<Core\'s public key>"'
    lines.append(f"{shlex.join(words)} -e {key} {shlex.join([target_image, *command])}")
    return "\n".join(lines)


def _copy(container: str, ending: str, template: str, names: Sequence[str]) -> str:
    """The line that writes these values of the old container to a file that only its user can read."""
    escaped = "|".join(_SPECIAL.sub(r"\\\g<0>", name) for name in names)
    pattern = shlex.quote(f"^({escaped})=")
    return (
        f"(umask 077; docker inspect -f {shlex.quote(template)} {shlex.quote(container)} | "
        f"grep -E {pattern} > {shlex.quote(container)}.{ending})"
    )


def _own_labels(entry: Mapping[str, Any]) -> list[str]:
    """Names of the labels that a person set: the image's own are those of the new image."""
    labels = (entry.get("Config") or {}).get("Labels") or {}
    return [str(n) for n in labels if not str(n).startswith("org.opencontainers.") and n != "komodo.skip"]


def _own_variables(entry: Mapping[str, Any], image: Mapping[str, Any]) -> list[str]:
    """Names of the variables that a person set: those that the image does not set to the same value."""
    of_image = set((image.get("Config") or {}).get("Env") or ())
    pairs = [str(pair) for pair in (entry.get("Config") or {}).get("Env") or () if pair not in of_image]
    names = [pair.partition("=")[0] for pair in pairs]
    replaced = (*_BY_IMAGE, "PERIPHERY_CORE_PUBLIC_KEYS", "PERIPHERY_CORE_PUBLIC_KEY")
    return [name for name in names if name.upper() not in replaced or (name in _BY_IMAGE and image)]


def _command(entry: Mapping[str, Any], image: Mapping[str, Any]) -> list[str]:
    """What was given after the image; the image's own command is that of the new image."""
    config, default = entry.get("Config") or {}, (image.get("Config") or {}).get("Cmd")
    command = [str(word) for word in config.get("Cmd") or ()]
    return [] if not image or command == default else command


def _options(entry: Mapping[str, Any]) -> Iterator[str]:
    host, config = entry.get("HostConfig") or {}, entry.get("Config") or {}
    yield "--init"
    policy = host.get("RestartPolicy") or {}
    if policy.get("Name") not in (None, "", "no"):
        retries = f":{policy['MaximumRetryCount']}" if policy.get("MaximumRetryCount") else ""
        yield from ("--restart", f"{policy['Name']}{retries}")
    yield from _network(host)
    for flag, value in (("--hostname", _hostname(entry)), ("--user", config.get("User"))):
        if value:
            yield from (flag, str(value))
    for flag, values in (("--dns", host.get("Dns")), ("--add-host", host.get("ExtraHosts"))):
        for value in values or ():
            yield from (flag, str(value))
    for flag, value in (("--privileged", host.get("Privileged")), ("--read-only", host.get("ReadonlyRootfs"))):
        if value:
            yield flag
    for flag, values in (("--cap-add", host.get("CapAdd")), ("--security-opt", host.get("SecurityOpt"))):
        for value in values or ():
            yield from (flag, str(value))
    for mode in ("Pid", "Ipc", "Uts"):
        value = str(host.get(f"{mode}Mode") or "")
        if value in ("host",):
            yield from (f"--{mode.lower()}", value)
    yield from _mounts(entry)


def _network(host: Mapping[str, Any]) -> Iterator[str]:
    mode = str(host.get("NetworkMode") or "")
    if mode not in ("", "default", "bridge"):
        yield from ("--network", mode)
    for inside, bindings in (host.get("PortBindings") or {}).items():
        port = str(inside).removesuffix("/tcp")
        for binding in bindings or ():
            address, outer = str(binding.get("HostIp") or ""), str(binding.get("HostPort") or "")
            address = f"[{address}]" if ":" in address else address
            yield from ("-p", ":".join(part for part in (address, outer, port) if part))


def _hostname(entry: Mapping[str, Any]) -> str:
    """Docker's default is the container's short id, which the new one does not keep."""
    name = str((entry.get("Config") or {}).get("Hostname") or "")
    return "" if str(entry.get("Id", "")).startswith(name) else name


def _mounts(entry: Mapping[str, Any]) -> Iterator[str]:
    mounts: Sequence[Mapping[str, Any]] = entry.get("Mounts") or ()
    keys = False
    for mount in mounts:
        source = str(mount.get("Name") or mount.get("Source") or "")
        target = str(mount.get("Destination") or "")
        keys = keys or target == KEYS
        if source and target:
            yield from ("-v", f"{source}:{target}" + ("" if mount.get("RW", True) else ":ro"))
    if not keys:
        name = str(entry.get("Name", "")).lstrip("/")
        yield from ("-v", f"{name}-keys:{KEYS}")
