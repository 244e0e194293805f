"""Docker and compose on the Core host: real files, real shapes, re-created only when something changed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sandbox.docker import compose_model, go_template
from sandbox.fleet import Sandbox
from tests.sandbox.conftest import Run, until

COMPOSE = "docker compose -p komodo -f komodo/mongo.compose.yaml --env-file komodo/compose.env"


async def compose(fleet: Sandbox, run: Run, words: str) -> Any:
    return await run("core", f"cd {fleet.hosts['core'].root}/opt && sudo -n {COMPOSE} {words}")


async def inspect(run: Run, name: str) -> dict[str, Any]:
    done = await run("core", f"sudo -n docker inspect {name}")
    found: dict[str, Any] = json.loads(str(done.stdout))[0]
    return found


async def test_inspect_has_dockers_shape(fleet: Sandbox, run: Run) -> None:
    root = fleet.hosts["core"].root
    listed = await run("core", "sudo -n docker ps -a --no-trunc --format '{{.ID}}'")
    assert len(str(listed.stdout).split()) == 3
    core = await inspect(run, "komodo-core-1")
    labels = core["Config"]["Labels"]
    assert labels["com.docker.compose.project"] == "komodo"
    assert labels["com.docker.compose.service"] == "core"
    assert labels["com.docker.compose.project.working_dir"] == f"{root}/opt/komodo"
    assert labels["com.docker.compose.project.config_files"] == f"{root}/opt/komodo/mongo.compose.yaml"
    assert labels["com.docker.compose.project.environment_file"] == f"{root}/opt/komodo/compose.env"
    assert core["Config"]["Image"] == "ghcr.io/moghtech/komodo-core:latest"
    assert core["HostConfig"]["PortBindings"] == {"9120/tcp": [{"HostIp": "", "HostPort": "9120"}]}
    assert core["NetworkSettings"]["Ports"]["9120/tcp"] == [{"HostIp": "0.0.0.0", "HostPort": "9120"}]
    assert core["HostConfig"]["Init"] is None
    env = dict(e.split("=", 1) for e in core["Config"]["Env"])
    assert env["KOMODO_DATABASE_ADDRESS"] == "mongo:27017"
    assert env["KOMODO_DATABASE_PASSWORD"] == fleet.own_secrets.db_password
    assert env["KOMODO_MONITORING_INTERVAL"] == "1-sec"
    assert env["KOMODO_INIT_ADMIN_PASSWORD"] == fleet.own_secrets.admin_password  # the comment is no part of it
    agent = dict(e.split("=", 1) for e in (await inspect(run, "komodo-periphery-1"))["Config"]["Env"])
    assert agent["PERIPHERY_PASSKEYS"] == fleet.own_secrets.passkey
    mongo = await inspect(run, "komodo-mongo-1")
    assert {m["Name"] for m in mongo["Mounts"]} == {"komodo_mongo-data", "komodo_mongo-config"}
    shown = await run("core", "sudo -n docker inspect -f '{{range .Config.Env}}{{println .}}{{end}}' komodo-core-1")
    assert "KOMODO_TITLE=Komodo" in str(shown.stdout).splitlines()
    assert (await run("core", "sudo -n docker inspect nothing")).exit_status == 1
    assert "permission denied" in str((await run("core", "docker ps")).stderr)


async def test_up_recreates_only_what_changed(fleet: Sandbox, run: Run) -> None:
    before = {n: (await inspect(run, f"komodo-{n}-1"))["Id"] for n in ("core", "mongo", "periphery")}
    same = await compose(fleet, run, "up -d")
    assert "Running" in str(same.stderr)
    env = fleet.hosts["core"].root / "opt/komodo/compose.env"
    env.write_text(env.read_text().replace("IMAGE_TAG=latest", "IMAGE_TAG=2.3.2"))
    file = fleet.hosts["core"].root / "opt/komodo/mongo.compose.yaml"
    old = "    env_file: ./compose.env\n    environment:\n      KOMODO_DATABASE_ADDRESS"
    assert old in file.read_text()
    file.write_text(file.read_text().replace(old, f"    init: true\n{old}").replace(
        "      ## dated backups", "      - ./keys:/config/keys\n      ## dated backups"))  # fmt: skip
    assert (await compose(fleet, run, "config --quiet")).exit_status == 0
    images = await compose(fleet, run, "config --images")
    assert "ghcr.io/moghtech/komodo-core:2.3.2" in str(images.stdout).split()
    pulled = await run("core", "sudo -n docker pull ghcr.io/moghtech/komodo-core:2.3.2")
    assert "Status: Downloaded newer image for ghcr.io/moghtech/komodo-core:2.3.2" in str(pulled.stdout)
    assert (await compose(fleet, run, "up -d --no-deps core")).exit_status == 0
    after = {n: (await inspect(run, f"komodo-{n}-1"))["Id"] for n in ("core", "mongo", "periphery")}
    assert before["core"] != after["core"]
    assert (before["mongo"], before["periphery"]) == (after["mongo"], after["periphery"])
    core = await inspect(run, "komodo-core-1")
    assert core["HostConfig"]["Init"] is True
    await until(lambda: fleet.core is not None and fleet.core.listening)
    pem = fleet.hosts["core"].root / "opt/komodo/keys/core.key"
    assert pem.read_text().startswith("-----BEGIN PRIVATE KEY-----")
    assert pem.stat().st_mode & 0o777 == 0o600
    logs = str((await run("core", "sudo -n docker logs komodo-core-1")).stdout)
    assert fleet.core is not None
    assert f"Public Key: {fleet.core.public_key}" in logs
    curl = await run("core", "curl -fsS http://127.0.0.1:9120/version")
    assert curl.stdout == "2.3.2"
    kept = fleet.core.public_key
    await compose(fleet, run, "restart core")
    assert fleet.core.public_key == kept


async def test_without_a_keys_mount_every_new_container_has_a_new_key(tmp_path: Path) -> None:
    async with await Sandbox.start(tmp_path, servers=0, core_version="2.3.2", speed=20) as sandbox:
        assert sandbox.core is not None
        first, container = sandbox.core.public_key, sandbox.core.container
        await sandbox.engine.remove(container)
        await sandbox.engine.start(sandbox.engine.create(container.spec))
        assert sandbox.core.public_key != first


async def test_no_project_files(run: Run) -> None:
    done = await run("core", "sudo -n docker compose up -d")
    assert (done.exit_status, done.stderr) == (1, "no configuration file provided: not found\n")


async def test_image_pins_cp_exec_and_logs(fleet: Sandbox, run: Run) -> None:
    made = await run("core", "sudo -n docker create --name keep-1 ghcr.io/moghtech/komodo-core:2.0.0")
    assert made.exit_status == 0
    assert (await inspect(run, "keep-1"))["State"]["Status"] == "created"
    twice = await run("core", "sudo -n docker create --name keep-1 ghcr.io/moghtech/komodo-core:2.0.0")
    assert "Conflict" in str(twice.stderr)
    assert "is not running" in str((await run("core", "sudo -n docker exec keep-1 ls /")).stderr)
    assert (await run("core", "sudo -n docker rm keep-1")).exit_status == 0
    await run("core", "echo hello > ~/x && sudo -n docker cp ~/x komodo-mongo-1:/tmp/x")
    assert (await run("core", "sudo -n docker exec komodo-mongo-1 ls /tmp/x")).stdout == "/tmp/x\n"
    out = await run("core", "sudo -n docker cp komodo-mongo-1:/tmp/x ~/y && cat ~/y")
    assert out.stdout == "hello\n"
    await run("core", "sudo -n docker exec komodo-mongo-1 rm -f /tmp/x")
    gone = await run("core", "sudo -n docker exec komodo-mongo-1 ls /tmp/x")
    assert gone.exit_status == 2
    assert "/tmp/x" in str(gone.stderr)
    assert str(fleet.folder) not in str(gone.stderr)
    version = await run("core", "sudo -n docker exec komodo-periphery-1 periphery --version")
    assert version.stdout == "periphery 1.19.5\n"
    nothing = await run("core", "sudo -n docker logs --since 2099-01-01T00:00:00Z komodo-core-1")
    assert nothing.stdout == ""
    tail = await run("core", "sudo -n docker logs komodo-core-1 --tail 1")
    assert "Komodo Core starting on http://[::]:9120" in str(tail.stdout)


async def test_images_that_nobody_holds_are_pruned(fleet: Sandbox, run: Run) -> None:
    for name in ("core", "periphery"):
        await run("core", f"sudo -n docker pull ghcr.io/moghtech/komodo-{name}:2.3.2")
    await run("core", "sudo -n docker create --name keep-1 ghcr.io/moghtech/komodo-core:2.3.2")
    assert fleet.prune_images() == ["ghcr.io/moghtech/komodo-periphery:2.3.2"]
    gone = await run("core", "sudo -n docker image inspect ghcr.io/moghtech/komodo-periphery:2.3.2")
    assert gone.exit_status == 1


@pytest.mark.parametrize("fault", ["pull-fails", "up-does-nothing"])
async def test_docker_faults(fleet: Sandbox, run: Run, fault: str) -> None:
    before = (await inspect(run, "komodo-core-1"))["Id"]
    fleet.fault(fault, "core")
    if fault == "pull-fails":
        done = await run("core", "sudo -n docker pull ghcr.io/moghtech/komodo-core:2.3.2")
    else:
        done = await compose(fleet, run, "up -d --no-deps --force-recreate core")
    assert done.exit_status == 1
    assert "Error response from daemon" in str(done.stderr)
    assert (await inspect(run, "komodo-core-1"))["Id"] == before
    unknown = await run("core", "sudo -n docker pull ghcr.io/moghtech/komodo-core:9.9.9")
    assert unknown.exit_status == 1


def test_interpolation() -> None:
    env = {"A": "1", "EMPTY": ""}
    for text, wanted in {
        "$A-${A}": "1-1",
        "${B:-x}": "x",
        "${EMPTY:-x}": "x",
        "${EMPTY-x}": "",
        "${B-${A}}": "1",
        "${A:+y}": "y",
        "$$A": "$A",
        "${B}": "",
    }.items():
        assert compose_model.interpolate(text, env) == wanted, text
    with pytest.raises(compose_model.ComposeError, match="required variable B"):
        compose_model.interpolate("${B:?missing}", env)


@pytest.mark.official("services")
def test_every_official_compose_file_loads(official_file: Path, tmp_path: Path) -> None:
    folder = tmp_path / "komodo"
    folder.mkdir()
    for name in (official_file.name, "compose.env"):
        (folder / name).write_text((official_file.parent / name).read_text())
    project = compose_model.load(
        cwd=tmp_path, files=[f"komodo/{official_file.name}"], env_files=["komodo/compose.env"], name="komodo",
        directory="", env={},
    )  # fmt: skip
    assert "core" in project.services or "periphery" in project.services
    for service in project.services.values():
        assert "$" not in service.image


@pytest.mark.parametrize(
    ("template", "wanted"),
    [
        ("{{.A.B}}", "1"),
        ("{{json .A}}", '{"B":1}'),
        ("{{range .L}}{{println .}}{{end}}", "x\ny\n"),
        ('{{index .M "a.b"}}', "v"),
        ("{{if .L}}yes{{else}}no{{end}}", "yes"),
        ("{{if .N}}yes{{else}}no{{end}}", "no"),
        ('{{join .L ","}}', "x,y"),
    ],
)
def test_go_templates(template: str, wanted: str) -> None:
    assert go_template.render(template, {"A": {"B": 1}, "L": ["x", "y"], "M": {"a.b": "v"}, "N": []}) == wanted
