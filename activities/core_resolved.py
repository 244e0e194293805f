"""Core's files are read by compose once more, in our shell: are they all that Core was started with?"""

from __future__ import annotations

from activities.core_access import script
from activities.core_edits import interpolation_file, profiles, read_texts
from activities.core_survey import Look
from komodo.environment import values
from komodo.project import compose_command, refuse
from komodo.resolved import findings, resolved_services


async def read_files(look: Look) -> None:
    """The project's compose files, read once for all that follows."""
    project = look.project
    assert project is not None  # noqa: S101 - set by `containers`
    look.compose_texts = await read_texts(look.host, project.files)


async def find_asleep(look: Look) -> None:
    """Refuses services that compose leaves out: none of their profiles is switched on in the project's own files."""
    project = look.project
    assert project is not None  # noqa: S101 - set by `containers`
    services = [container.service for container in (look.core, look.agent) if container]
    asked = {service: named for service in services if (named := profiles(look.compose_texts, service))}
    if not asked:
        return
    path = interpolation_file(project)
    file = await look.host.read(path)
    on = values(file.data.decode(errors="replace")).get("COMPOSE_PROFILES", "") if file else ""
    for service, named in asked.items():
        if not {"*", *named} & {p.strip() for p in on.split(",")}:
            text = f"compose leaves {service} out: no file switches its profile on ({', '.join(named)})"
            raise look.end(refuse("profile", text, f"write COMPOSE_PROFILES={named[0]} into {path}"))


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
