"""Let compose resolve Core's files in the tool's own shell, to detect whether Core was started with anything else."""

from __future__ import annotations

import asyncio

from activities.core.access import script
from activities.core.files import LARGEST_TEXT, interpolation_file, read_texts
from activities.core.survey import CoreSurvey
from komodo.compose.services import profiles
from komodo.core.compose_drift import findings, resolved_services
from komodo.core.containers import compose_command, refuse
from komodo.files.env import values


async def read_files(survey: CoreSurvey) -> None:
    """The project's compose files, read once and shared by the checks below."""
    project = survey.project
    assert project is not None  # noqa: S101 - set by `containers`
    survey.compose_texts = await read_texts(survey.host, project.files)


async def find_asleep(survey: CoreSurvey) -> None:
    """Refuses services that compose leaves out because the project's own files enable none of their profiles."""
    project = survey.project
    assert project is not None  # noqa: S101 - set by `containers`
    services = [container.service for container in (survey.core, survey.agent) if container]
    texts = tuple(survey.compose_texts.values())
    found = await asyncio.to_thread(lambda: {service: profiles(texts, service) for service in services})
    asked = {service: named for service, named in found.items() if named}
    if not asked:
        return
    path = interpolation_file(project)
    file = await survey.host.read(path, limit=LARGEST_TEXT)
    filled = await asyncio.to_thread(values, file.data.decode(errors="replace")) if file else {}
    on = filled.get("COMPOSE_PROFILES", "")
    for service, named in asked.items():
        if not {"*", *named} & {p.strip() for p in on.split(",")}:
            text = f"compose leaves {service} out: no file switches its profile on ({', '.join(named)})"
            raise survey.end(refuse("profile", text, f"write COMPOSE_PROFILES={named[0]} into {path}"))


async def compare(survey: CoreSurvey) -> None:
    """Adds what would differ if Core, or its project's agent, were started again from the same files."""
    project = survey.project
    assert project is not None  # noqa: S101 - set by `containers`
    words = compose_command(project)
    done = await survey.host.run(script("core/resolve_project.sh", *words, directory=project.directory))
    services = resolved_services(done.text)
    for container in (survey.core, survey.agent):
        if container is not None and container.service in services:
            survey.findings += findings(container, services[container.service])
