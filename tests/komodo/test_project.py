"""Core's project found from what docker says: compose v2, docker-compose 1.29, mirrors, overrides, refusals."""

from __future__ import annotations

import json
from typing import Any

import pytest

from komodo.core.containers import (
    Container,
    Labelled,
    candidates,
    compose_command,
    find_agent,
    find_core,
    find_database,
    image_kind,
    labelled_project,
    parse_containers,
    published,
    stack_of_komodo,
    without_environment,
)
from model.facts import ComposeProject, Finding
from model.fleet.spec import CoreSpec, HostSpec
from tests.komodo.inspected import CORE_ENV, V1_LABELS, bind, entry, official, text, volume

SPEC = CoreSpec(host=HostSpec(name="core", address="core"))


def spec(**kwargs: Any) -> CoreSpec:
    return CoreSpec(host=SPEC.host, **kwargs)


def found(entries: list[dict[str, Any]], which: CoreSpec = SPEC) -> Container:
    core = find_core(parse_containers(text(entries)), which)
    assert isinstance(core, Container), core
    return core


@pytest.mark.parametrize(
    ("image", "kind"),
    [
        ("ghcr.io/moghtech/komodo-core:latest", "core"),
        ("ghcr.io/moghtech/komodo-core:2.3.2@sha256:" + "a" * 64, "core"),
        ("ghcr.io/mbecker20/komodo:1.16.12", "core"),
        ("ghcr.io/mbecker20/periphery", "periphery"),
        ("registry.lan:5000/mirror/moghtech/komodo-core:1", "core"),
        ("komodo-core", "core"),
        ("ghcr.io/moghtech/komodo-cli:2", ""),
        ("mongo", ""),
        ("ghcr.io/someone/not-komodo-core:1", ""),
    ],
)
def test_images(image: str, kind: str) -> None:
    assert image_kind(image) == kind


def test_the_official_project() -> None:
    containers = parse_containers(text(official()))
    core = found(official())
    assert (core.name, core.service, core.project) == ("komodo-core-1", "core", "komodo")
    agent = find_agent(containers, core)
    assert agent is not None
    assert agent.name == "komodo-periphery-1"
    database, reach = find_database(containers, core, "mongo", 27017) or (None, "")
    assert database is not None
    assert (database.name, reach) == ("komodo-mongo-1", "172.18.0.2:27017")
    assert published(core, 9120) == "127.0.0.1:9120"
    labelled = labelled_project(core, SPEC)
    assert isinstance(labelled, Labelled)
    project = ComposeProject(
        name=labelled.name, directory=labelled.directory, files=labelled.files, env_file=labelled.env_files[0]
    )
    assert compose_command(project) == (
        *("docker", "compose", "-p", "komodo", "-f", "/opt/komodo/mongo.compose.yaml"),
        *("--env-file", "/opt/komodo/compose.env"),
    )
    staged = compose_command(project, files=("/run/staged/c.yaml",), env_file="/run/staged/compose.env")
    assert staged[-2:] == ("--project-directory", "/opt/komodo")
    assert "/run/staged/compose.env" in staged


def test_secrets_are_in_no_repr() -> None:
    core = found(official())
    assert "s3cr:t" not in repr(core)
    assert core.setting("komodo_database_password") == CORE_ENV["KOMODO_DATABASE_PASSWORD"]


def test_labels_of_docker_compose_1() -> None:
    core = found(official(V1_LABELS))
    labelled = labelled_project(core, SPEC)
    assert isinstance(labelled, Labelled)
    assert labelled.env_files == ()
    assert candidates(labelled.files[0], labelled.folders) == (
        "/opt/komodo/komodo/mongo.compose.yaml",
        "/opt/komodo/mongo.compose.yaml",
    )


def test_several_files_and_overrides() -> None:
    entries = official()
    entries[0]["Config"]["Labels"]["com.docker.compose.project.config_files"] = "/a/x.yaml,/a/y.yaml"
    labelled = labelled_project(found(entries), SPEC)
    assert isinstance(labelled, Labelled)
    assert labelled.files == ("/a/x.yaml", "/a/y.yaml")
    reported = labelled_project(found(entries), spec(project="p", compose_files=("/b/z.yaml",), env_file="/b/.env"))
    assert isinstance(reported, Labelled)
    assert (reported.name, reported.files, reported.env_files) == ("p", ("/b/z.yaml",), ("/b/.env",))
    assert "from [core].compose_files" in reported.sources[2]


def test_several_cores_are_refused_by_name_unless_one_runs() -> None:
    entries = official()
    entries.append(entry("old-core", "ghcr.io/mbecker20/komodo:1.16", labels={}))
    refused = find_core(parse_containers(text(entries)), SPEC)
    assert isinstance(refused, Finding)
    assert refused.code == "several-cores"
    assert "komodo-core-1" in refused.text
    assert "old-core" in refused.text
    assert found(entries, spec(container="old-core")).name == "old-core"
    entries[-1]["State"]["Running"] = False
    assert found(entries).name == "komodo-core-1"
    missing = find_core(parse_containers(text(entries)), spec(container="nope"))
    assert isinstance(missing, Finding)
    assert missing.code == "core-not-found"


def test_an_own_image_is_found_by_name_only() -> None:
    entries = [entry("core", "registry.lan/me/own:1", service="core", env=CORE_ENV)]
    assert isinstance(find_core(parse_containers(text(entries)), SPEC), Finding)
    assert found(entries, spec(container="core")).name == "core"


def test_a_bare_container_is_refused() -> None:
    refused = labelled_project(found([entry("komodo", "ghcr.io/moghtech/komodo-core:1", labels={})]), SPEC)
    assert isinstance(refused, Finding)
    assert refused.code == "not-compose"


def test_an_external_database_is_not_found() -> None:
    containers = parse_containers(text(official()))
    assert find_database(containers, found(official()), "db.example.com", 27017) is None


def test_database_of_a_core_on_the_hosts_network() -> None:
    entries = [
        entry("core", "ghcr.io/moghtech/komodo-core:1", network_mode="host", networks={"host": ("", [])}),
        entry(
            "mongo", "mongo:7", labels={}, networks={"x": ("172.19.0.2", ["mongo"])},
            ports={"27017/tcp": [{"HostIp": "127.0.0.1", "HostPort": "27017"}]},
        ),
    ]  # fmt: skip
    hit = find_database(parse_containers(text(entries)), found(entries), "localhost", 27017)
    assert hit is not None
    assert (hit[0].name, hit[1]) == ("mongo", "127.0.0.1:27017")
    assert published(found(entries), 9120) == "127.0.0.1:9120"


def test_a_stopped_core_still_tells_its_port_and_networks() -> None:
    entries = official()
    entries[0]["State"]["Running"] = False
    entries[0]["NetworkSettings"]["Networks"]["komodo_default"]["IPAddress"] = ""
    core = found(entries)
    assert published(core, 9120) == "127.0.0.1:9120"
    assert find_database(parse_containers(text(entries)), core, "mongo", 27017) is not None


@pytest.mark.parametrize(
    ("bindings", "expected"),
    [
        ([{"HostIp": "10.0.0.5", "HostPort": "80"}], "10.0.0.5:80"),
        ([{"HostIp": "0.0.0.0", "HostPort": "9121"}], "127.0.0.1:9121"),
        ([{"HostIp": "", "HostPort": ""}], ""),
        ([], ""),
    ],
)
def test_published_ports(bindings: list[dict[str, str]], expected: str) -> None:
    entries = official()
    entries[0]["HostConfig"]["PortBindings"] = {"9120/tcp": bindings}
    assert published(found(entries), 9120) == expected


def test_a_core_that_is_a_stack_of_komodo() -> None:
    containers = parse_containers(text(official()))
    assert stack_of_komodo("/opt/komodo", containers) == ""
    assert stack_of_komodo("/etc/komodo/stacks/komodo", containers) == "/etc/komodo/stacks"
    entries = official()
    entries[2]["Config"]["Env"] = ["PERIPHERY_ROOT_DIRECTORY=/srv/komodo"]
    assert stack_of_komodo("/srv/komodo/stacks/core", parse_containers(text(entries))) == "/srv/komodo/stacks"


def test_mounts_lead_to_the_host() -> None:
    entries = official()
    entries[0]["Mounts"] = [volume("komodo_keys", "/config/keys"), bind("/opt/komodo/cfg", "/config")]
    core = found(entries)
    assert core.host_path("/config/keys/core.pub") == "/var/lib/docker/volumes/komodo_keys/_data/core.pub"
    assert core.host_path("/config/config.toml") == "/opt/komodo/cfg/config.toml"
    assert core.host_path("/data") == ""


def test_the_saved_inspect_holds_no_value_of_the_environment() -> None:
    kept = without_environment(text(official()))
    assert "s3cr:t" not in kept
    assert "a_random_passkey" not in kept
    assert json.loads(kept)[0]["Config"]["Env"][1] == "KOMODO_DATABASE_ADDRESS=***"
    assert json.loads(kept)[0]["Config"]["Image"] == "ghcr.io/moghtech/komodo-core:latest"
