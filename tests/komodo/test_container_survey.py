"""Facts and findings about an agent in a container."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from komodo.agent.container import ContainerSurvey, config_paths, container_facts, settings_of_container
from komodo.core.containers import Container, Mount
from komodo.files.edit_set import ProjectFiles, edit_project
from komodo.logs import LoadedConfig, RunLog
from komodo.public_key import PLACEHOLDER
from model.facts import ComposeProject, CoreFacts, Finding, Install, ServerFacts, Severity
from model.planning import evaluate_key, server_differs
from tests.komodo.test_agent_survey import KEY, config, survey

IMAGE = "ghcr.io/moghtech/komodo-periphery:1.19.5"
COMPOSE = f"""services:
  periphery:
    image: {IMAGE}
    environment:
      PERIPHERY_PASSKEYS: hunter2
"""
ENGINE = {"engine": ["28.5.1 1.51"], "version": ["periphery 1.19.5"], "docker_free": [str(10**11)]}
BASE = survey(configs=(), in_container=True, settings={"PERIPHERY_PASSKEYS": "(set)"}, files={"state_place": ["a b"]})


def container(**changes: Any) -> Container:
    made = Container(
        id="abc",
        name="periphery-periphery-1",
        image=IMAGE,
        image_id="sha256:old",
        running=True,
        labels={"com.docker.compose.service": "periphery", "com.docker.compose.project": "periphery"},
    )
    return replace(made, **changes)


def made(text: str = COMPOSE, **changes: Any) -> ContainerSurvey:
    engine = ENGINE | changes.pop("engine", {})
    base = replace(BASE, **changes.pop("base", {}))
    path = "/opt/p/compose.yaml"
    files = ProjectFiles(directory="/opt/p", compose={path: text})
    project = ComposeProject(name="periphery", directory="/opt/p", files=(path,))
    edit = edit_project(files, target="2.3.2", key=PLACEHOLDER)
    found = ContainerSurvey(base=base, container=container(), engine=engine, project=project, edit=edit)
    return replace(found, **changes)


def codes(facts: ServerFacts) -> set[str]:
    return {f"{f.severity} {f.code}" for f in facts.findings if f.severity is not Severity.INFO}


def test_an_ordinary_container_has_two_edits_and_nothing_to_say() -> None:
    facts = container_facts(made())
    assert facts.findings == ()
    assert (facts.install, facts.version, facts.current) == (Install.CONTAINER, "1.19.5", False)
    assert [(e.path, e.with_key) for e in facts.edits] == [
        ("/opt/p/compose.yaml", False),
        ("/opt/p/compose.yaml", True),
    ]
    assert facts.container is not None
    assert facts.container.service.target_image == "ghcr.io/moghtech/komodo-periphery:2.3.2"
    assert not facts.in_core_project
    assert "hunter2" not in repr(facts)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"engine": {"engine": ["18.09.1 1.39"]}}, "refuse engine-too-old"),
        ({"engine": {"engine": ["18.09.1 1.39"], "version": ["periphery 2.3.1"]}}, "warn engine-too-old"),
        ({"engine": {"engine": ["24.0.2 1.43"]}}, "warn engine-old"),
        ({"engine": {"engine": ["27.3.1 1.47"]}}, "warn engine-old"),
        ({"engine": {"version": [""]}, "base": {"log": RunLog()}}, "refuse version-unknown"),
        ({"engine": {"version": ["periphery 2.4.0"]}}, "refuse newer-than-target"),
        ({"engine": {"version": ["periphery 1.14.0"]}}, "warn very-old-agent"),
        ({"engine": {"docker_free": ["1000"]}}, "refuse no-space"),
        ({"container": container(running=False)}, "refuse agent-not-running"),
        ({"compose": {"git": ["/opt"]}}, "warn git"),
        ({"base": {"lock": "staging 20261123T000000Z"}}, "refuse host-locked"),
        ({"base": {"machine": {"machine": ["armv7l"]}}}, "refuse architecture"),
        ({"base": {"configs": (config("port = 1\nport = 2\n"),)}}, "refuse duplicate-key"),
        ({"base": {"settings": {}, "log": RunLog(version="1.19.5", config=LoadedConfig())}}, "warn agent-open"),
        ({"base": {"files": {"foreign": ["1000\t/opt/p/compose.yaml"]}}}, "refuse file-owner"),
    ],
)
def test_each_fault_is_named(changes: dict[str, Any], code: str) -> None:
    assert codes(container_facts(made(**changes))) == {code}


def test_an_engine_of_unknown_version_is_no_reason_to_refuse() -> None:
    assert container_facts(made(engine={"engine": [""]})).findings == ()


def test_settings_show_no_secret() -> None:
    env = {"PERIPHERY_PASSKEYS": "hunter2", "PERIPHERY_PORT": "8121", "periphery_ssl_enabled": "false", "PATH": "/x"}
    shown = settings_of_container(container(env=env))
    assert shown == {"PERIPHERY_PASSKEYS": "(set)", "PERIPHERY_PORT": "8121", "PERIPHERY_SSL_ENABLED": "false"}


MOUNTS = (Mount(kind="bind", source="/srv/conf", destination="/conf"),)


@pytest.mark.parametrize(
    ("changes", "on_host", "inside"),
    [
        ({"command": ("periphery",)}, (), ()),
        (
            {"command": ("periphery", "--config-path", "/conf/a.toml", "-c", "/b.toml")},
            ("/srv/conf/a.toml",),
            ("/b.toml",),
        ),
        ({"command": ("sh", "-c", "periphery --config-path=/conf/a.toml")}, ("/srv/conf/a.toml",), ()),
        ({"env": {"PERIPHERY_CONFIG_PATHS": "/config,/conf"}}, ("/srv/conf",), ("/config",)),
        ({"env": {"PERIPHERY_CONFIG_PATH": "/conf/x.toml"}}, ("/srv/conf/x.toml",), ()),
    ],
)
def test_config_files_are_found_from_the_command_and_the_environment(
    changes: dict[str, Any], on_host: tuple[str, ...], inside: tuple[str, ...]
) -> None:
    found = config_paths(container(mounts=MOUNTS, **changes))
    assert (found.on_host, found.inside_only) == (on_host, inside)


V2 = f"""services:
  periphery:
    image: ghcr.io/moghtech/komodo-periphery:2.3.1
    init: true
    environment:
      PERIPHERY_CORE_PUBLIC_KEYS: {KEY}
    volumes:
      - ./keys:/config/keys
"""
OTHER = "MCowBQYDK2VuAyEAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="


def v2(version: str = "2.3.1", settings: dict[str, str] | None = None) -> ServerFacts:
    environment = {"PERIPHERY_CORE_PUBLIC_KEYS": KEY} if settings is None else settings
    log = RunLog(version=version, config=LoadedConfig(core_public_keys=(KEY,)))
    text = V2.replace("2.3.1", version)
    return container_facts(
        made(text, engine={"version": [f"periphery {version}"]}, base={"settings": environment, "log": log})
    )


def test_a_v2_container_with_cores_key_keeps_it_and_gets_the_new_image() -> None:
    facts = evaluate_key(CoreFacts(version="2.3.2", current=True, public_key=KEY), v2())
    assert (facts.pinned_keys, facts.current) == ((KEY,), False)
    assert [e.with_key for e in facts.edits] == [False]
    assert "2.3.2" in facts.edits[0].diff


def test_a_v2_container_with_another_key_gets_cores_as_well() -> None:
    facts = evaluate_key(CoreFacts(version="2.3.2", current=True, public_key=OTHER), v2())
    assert [e.with_key for e in facts.edits] == [False, True]
    assert "warn another-key" in codes(facts)


def test_a_container_on_the_target_with_cores_key_is_current() -> None:
    facts = evaluate_key(CoreFacts(version="2.3.2", current=True, public_key=KEY), v2("2.3.2"))
    assert (facts.current, facts.edits) == (True, ())


def test_the_environment_wins_over_the_keys_of_a_mounted_config() -> None:
    file = config(f'core_public_keys = ["{OTHER}"]\n')
    found = made(V2, engine={"version": ["periphery 2.3.1"]})
    for settings, pinned in (({"PERIPHERY_CORE_PUBLIC_KEYS": KEY}, (KEY,)), ({}, (OTHER,))):
        base = replace(found.base, settings=settings, configs=(file,))
        assert container_facts(replace(found, base=base)).pinned_keys == pinned


def test_an_agent_that_connects_by_itself_is_recognised() -> None:
    config_of_run = LoadedConfig(core_public_keys=(KEY,), core_addresses=("wss://komodo.example.com",))
    log = RunLog(version="2.3.1", config=config_of_run)
    base = {"settings": {"PERIPHERY_CORE_PUBLIC_KEYS": KEY}, "log": log}
    facts = container_facts(made(V2, engine={"version": ["periphery 2.3.1"]}, base=base))
    assert (facts.outbound, facts.pinned_keys, codes(facts)) == (True, (KEY,), set())


def test_another_image_behind_the_same_tag_is_another_server() -> None:
    facts = container_facts(made())
    moved = container_facts(made(container=container(image_id="sha256:new")))
    assert server_differs(facts, moved)
    assert not server_differs(facts, facts)


def test_what_could_not_be_read_is_refused_and_keeps_the_rest() -> None:
    refusal = Finding(code="docker-run", severity=Severity.REFUSE, subject="web-1", text="no compose")
    facts = container_facts(made(project=None, edit=None, refusals=(refusal,)))
    assert (facts.container, codes(facts), facts.version) == (None, {"refuse docker-run"}, "1.19.5")
