"""Core's files are read by compose once more, in our shell: are they all that Core was started with?"""

from __future__ import annotations

from activities.core_access import script
from activities.core_survey import Look
from komodo.project import compose_command
from komodo.resolved import findings, resolved_services


async def compare(look: Look) -> None:
    """Adds what would be different if Core, or its project's agent, were started again from the same files."""
    project = look.project
    assert project is not None  # noqa: S101 - set by `containers`
    words = compose_command(project)
    done = await look.host.run(script("resolve_project.sh"), project.directory, *words)
    services = resolved_services(done.text)
    for container in (look.core, look.agent):
        if container is not None and container.service in services:
            look.findings += findings(container, services[container.service])
