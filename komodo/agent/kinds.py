"""Which of a machine's agents is the one that Core talks to: the one that runs. Pure.

Machines keep what is no longer used: a disabled `periphery.service` of earlier times next to a container that took its
port, or a stopped container next to the service. Starting the wrong one takes the port of the right one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from komodo.agent.survey import Output, unit_of
from komodo.core.containers import IMAGE_PIN, image_kind
from model.facts import Finding, Install, Severity
from model.fleet.spec import AgentInstall, ServerSpec

_AUTOMATIC = ("always", "unless-stopped", "on-failure")
"""Restart policies."""
_CRASH_LOOP = "auto-restart"
"""SubState of a unit between two starts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundAgent:
    """One agent of a machine, running or not."""

    install: Install
    name: str
    """Of the unit or the container."""
    id: str = ""
    """Of the container."""
    image: str = ""
    running: bool = False
    starts_by_itself: bool = False
    """After a restart of the machine."""

    @property
    def title(self) -> str:
        """For messages."""
        return f"the container {self.name} ({self.image})" if self.install is Install.CONTAINER else self.name


@dataclass(frozen=True, slots=True, kw_only=True)
class ChosenAgent:
    """The agent that counts, and what there is to say about the others."""

    agent: FoundAgent | None
    """None: the machine has none of the kind that the fleet file names, or none at all."""
    findings: tuple[Finding, ...] = ()


def choose_agent(server: ServerSpec, machine: Output) -> ChosenAgent:
    """From the output of survey_server.sh. `install` of the fleet file has precedence over what runs."""
    found = (*_units(server, machine), *containers_in(machine))
    fitting = [agent for agent in found if server.install in (AgentInstall.AUTO, *_KINDS[agent.install])]
    running = [agent for agent in fitting if agent.running]
    if not running:
        # A unit that is started with the machine is the likelier one; a disabled one was given up.
        fitting.sort(key=lambda agent: not agent.starts_by_itself)
    chosen = next(iter(running or fitting), None)
    findings = [_two_agents(server, running)] if len(running) > 1 else []
    rest = [agent for agent in found if agent is not chosen and agent not in running]
    findings += [_leftover(server, chosen, agent) for agent in rest if chosen is not None]
    if chosen is None and server.install is AgentInstall.CONTAINER:
        findings.append(_no_container(server))
    return ChosenAgent(agent=chosen, findings=tuple(findings))


_KINDS = {
    Install.SYSTEMD: (AgentInstall.SYSTEMD, AgentInstall.SYSTEMD_USER),
    Install.CONTAINER: (AgentInstall.CONTAINER,),
}


def _units(server: ServerSpec, machine: Output) -> Iterator[FoundAgent]:
    found = unit_of(machine, server)
    if found.exists:
        yield FoundAgent(
            install=Install.SYSTEMD,
            name=found.name,
            running=found.active or found.sub_state == _CRASH_LOOP,
            starts_by_itself=found.enabled not in ("disabled", "linked", "masked"),
        )


def containers_in(machine: Output) -> tuple[FoundAgent, ...]:
    """Agents in containers; one in a project that also runs Core is found by the survey of Core."""
    lines = [[*line.split(" "), "", "", "", "", "", "", ""][:7] for line in machine.get("container", ())]
    with_core = {project for *_, image, _, project in lines if project and image_kind(image) == "core"}
    return tuple(
        FoundAgent(
            install=Install.CONTAINER,
            name=name.lstrip("/"),
            id=identity,
            image=image,
            running=running == "true",
            starts_by_itself=policy in _AUTOMATIC,
        )
        for identity, running, _restarting, policy, image, name, project in lines
        if image_kind(image) == "periphery" and project not in with_core and not name.startswith(f"/{IMAGE_PIN}")
    )


def _two_agents(server: ServerSpec, running: Sequence[FoundAgent]) -> Finding:
    kinds = {agent.install for agent in running}
    if len(kinds) > 1:
        hint = f'name the kind that Core uses in this [[server]]: install = "{running[0].install}" or the other'
    else:
        hint = "stop the one that Core does not use"
    return Finding(
        code="two-agents",
        severity=Severity.REFUSE,
        subject=server.name,
        text=f"{len(running)} agents run on this host: {' and '.join(agent.title for agent in running)}",
        hint=f"{hint}; the address of the Server in Komodo shows the port",
    )


def _leftover(server: ServerSpec, chosen: FoundAgent, agent: FoundAgent) -> Finding:
    text = f"{agent.title} is also on this host; {chosen.title} is the agent that is upgraded"
    if agent.running:
        return Finding(code="other-agent", severity=Severity.INFO, subject=server.name, text=f"{text}, as install says")
    if not agent.starts_by_itself:
        text = f"{text}, and the other one, which does not run, is left as it is"
        return Finding(code="other-agent", severity=Severity.INFO, subject=server.name, text=text)
    if agent.install is Install.CONTAINER:
        hint = f"if it is no longer needed: docker rm {agent.name}"
    else:
        hint = f"if it is no longer needed: systemctl disable {agent.name}"
    text = f"{text}; the other one does not run, but would take its port after a restart of the machine"
    return Finding(code="other-agent", severity=Severity.WARN, subject=server.name, text=text, hint=hint)


def _no_container(server: ServerSpec) -> Finding:
    return Finding(
        code="no-agent",
        severity=Severity.REFUSE,
        subject=server.name,
        text='no container on this host has an image of Komodo\'s agent, as install = "container" says',
        hint="`docker ps -a` lists the containers; leave `install` out to have the agent found",
    )
