"""Which side opens the connection between Core and an agent, and which keys of Core the agent accepts. Pure.

v1 knows inbound connections only and ignores the settings of outbound ones. A v2 agent with an address of Core connects
by itself, and its own server is off unless `server_enabled` is set (v2.3.2:bin/periphery/src/main.rs).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from komodo import releases
from komodo.agent.survey import Survey, one
from komodo.files.periphery_toml import ConfigFacts
from komodo.logs import LoadedConfig
from model.facts import Finding, Severity
from model.fleet.spec import Connection

Inspected = Mapping[str, ConfigFacts]
_ADDRESSES = ("PERIPHERY_CORE_ADDRESSES", "PERIPHERY_CORE_ADDRESS")
_KEYS = ("PERIPHERY_CORE_PUBLIC_KEYS", "PERIPHERY_CORE_PUBLIC_KEY")


def loaded(survey: Survey) -> LoadedConfig | None:
    """What the running v2 agent has loaded; None: it is v1, or its journal does not show it."""
    version = releases.version_of(survey.log.version)
    if not survey.unit.active or version is None or version < releases.FIRST_V2:
        return None
    return survey.log.config


def addresses(survey: Survey, inspected: Inspected) -> tuple[str, ...]:
    """Where the running agent connects to; none: Core connects to it.

    As it has loaded, or as its files say where the journal does not reach back to its start.
    """
    config = loaded(survey)
    if config is not None:
        return config.core_addresses
    version = releases.version_of(releases.printed_version(one(survey.files, "binary_version")))
    if not survey.unit.active or survey.log.version or version is None or version < releases.FIRST_V2:
        return ()
    return tuple(address for _, address in _written(survey, inspected))


def _written(survey: Survey, inspected: Inspected) -> list[tuple[str, str]]:
    """(place, address) of each setting that makes a v2 agent connect to Core."""
    found = [(f"{path} (core_addresses)", text) for path, facts in inspected.items() for text in facts.core_addresses]
    for name in _ADDRESSES:
        found += [(f"its environment ({name})", text) for text in survey.settings.get(name, "").split(",") if text]
    return found


def pins(survey: Survey, inspected: Inspected) -> tuple[str, ...]:
    """Keys of Core, and files with one, that the agent accepts: of its files, else what it has loaded."""
    config = loaded(survey)
    if config is not None and keys_in_environment(survey):
        return config.pins
    if written := tuple(key for facts in inspected.values() for key in facts.pinned):
        return written
    if config is None and addresses(survey, inspected):
        return tuple(facts.key_file for facts in inspected.values() if facts.outbound)[:1]
    return config.pins if config is not None else ()


def keys_in_environment(survey: Survey) -> tuple[str, ...]:
    """Variables that set Core's key; they win over the config files."""
    return tuple(name for name in _KEYS if name in survey.settings)


def findings(survey: Survey, inspected: Inspected) -> Iterator[Finding]:
    """Findings about the connection."""
    name, wanted, config = survey.server.name, survey.server.connection, loaded(survey)
    used = addresses(survey, inspected)
    if not used:
        if places := [place for place, _ in _written(survey, inspected)]:
            yield _refuse(
                name,
                "outbound-unused",
                f"{places[0]} names an address of Core, which the running agent does not use: after its next start as "
                "v2 it would connect to Core by itself, and Core could not connect to it any more",
                f"remove that setting, or bring the agent to the connection that it names, then restart "
                f"{survey.unit.name}; or name {name} in leave_behind",
            )
        elif wanted == Connection.OUTBOUND:
            yield from _not_connectable(survey, inspected)
        return
    if wanted == Connection.INBOUND:
        yield _refuse(
            name,
            "outbound",
            f"its agent connects to Core by itself ({', '.join(used)}): this is not changed to an inbound connection",
            "leave connection out: the agent is upgraded and goes on connecting to Core",
        )
    known = survey.log.logins[-1].server if survey.log.logins else config.connect_as if config else ""
    if known and known != name:
        yield _refuse(
            name,
            "connects-as",
            f"its agent connects as the Server {known}, not as {name}",
            f'name = "{known}" in this [[server]], or correct connect_as on the host and restart {survey.unit.name}',
        )


def connect_to(survey: Survey, inspected: Inspected) -> str:
    """Where the agent is to connect to after its switch; empty: its connection stays as it is."""
    wanted = survey.server.connection == Connection.OUTBOUND and not addresses(survey, inspected)
    return survey.agents_url if wanted else ""


def _not_connectable(survey: Survey, inspected: Inspected) -> Iterator[Finding]:
    """Why an inbound agent cannot be changed to connect to Core."""
    name = survey.server.name
    if survey.in_container:
        yield _refuse(
            name,
            "not-connectable",
            "it is to connect to Core, but this tool does not change the connection of agents in containers",
            "leave connection out, and change the agent after the upgrade",
        )
    elif not survey.agents_url:
        yield _refuse(
            name,
            "agents-url",
            "it is to connect to Core, but the fleet file does not say under which address agents reach Core",
            'agents_url = "wss://komodo.example.net" in [core]',
        )
    elif survey.agents_url_problem:
        yield _refuse(
            name,
            "agents-url",
            f"this host does not reach Core at {survey.agents_url}: {survey.agents_url_problem}",
            "correct agents_url, the proxy, the certificate or the firewall; or leave connection out",
        )
    written = any(facts.connect_as for facts in inspected.values()) or "PERIPHERY_CONNECT_AS" in survey.settings
    if written or keys_in_environment(survey):
        yield _refuse(
            name,
            "connect-as",
            "connect_as, or Core's key in the environment, is set already: the change to an outbound connection writes "
            "these settings",
            f"remove it, then restart {survey.unit.name}",
        )


def _refuse(server: str, code: str, text: str, hint: str) -> Finding:
    return Finding(code=code, severity=Severity.REFUSE, subject=server, text=text, hint=hint)
