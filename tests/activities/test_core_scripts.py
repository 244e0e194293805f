"""The scripts of Core's host on their own under dash, on a host of the sandbox with Docker."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from activities.core.backup import restore_script
from hosts.exec.script import Script
from sandbox.docker.engine import Container, Engine, Spec
from sandbox.mongo.program import database_of
from sandbox.mongo.store import Store
from tests.activities.local_hosts import LocalHosts
from tests.shells import SHELL, path, words_of

PASSWORD = 'p@ss:w/o rd"x\\y%'
ENCODED = "p%40ss%3Aw%2Fo%20rd%22x%5Cy%25"
COMPOSE = "services:\n  core:\n    image: busybox\n"


class Stage:
    """A host with a run folder, a compose project in it, Core's container (stopped) and the database's (running)."""

    def __init__(self, folder: Path) -> None:
        self.engine: Engine = LocalHosts.of_session().docker_host(folder / "host")
        self.host = self.engine.host
        self.run = self.host.root / "run"
        (self.run / "dumps").mkdir(parents=True)
        (self.run / "files").mkdir()
        (self.run / "restore.sh").write_text(restore_script())
        (self.run / "core-v2-started").touch()
        (self.run / "compose.yaml").write_text(COMPOSE)
        self.container("core", "busybox")

    def container(
        self, name: str, image: str, *env: str, start: bool = False, aliases: tuple[str, ...] = ()
    ) -> Container:
        """Create one, and its image."""
        published = self.engine.store.published(image)
        assert published is not None
        self.engine.store.add(published)
        labels = {"com.docker.compose.project": "komodo", "com.docker.compose.service": name}
        spec = Spec(name, image, env=list(env), labels=labels, network="komodo_default", aliases=aliases)
        made = self.engine.create(spec)
        if start:
            LocalHosts.of_session().run(self.engine.start(made))
        return made

    def database(self, *, password: str = "") -> Store:
        """A mongod in the container `db`, with three servers in it."""
        login = ("MONGO_INITDB_ROOT_USERNAME=us@er", f"MONGO_INITDB_ROOT_PASSWORD={password}") if password else ()
        server = database_of(self.container("db", "mongo", *login, start=True))
        assert server is not None
        server.store.insert("komodo", "Server", [{"_id": number} for number in range(3)])
        return server.store

    def list(self, *lines: str) -> None:
        basis = (
            "version\t1.19.5", "compose\tdocker compose", "project\tkomodo", f"directory\t{self.run}",
            "core_service\tcore", "core_container\tcore", "core_image\tk:1", "core_image_id\tsha256:abc",
            "db_container\tdb", "db_name\tkomodo", "db_port\t27017", "db_auth_source\tadmin",
            "db_uri\tmongodb://us%40er@127.0.0.1:27017/?authSource=admin",
        )  # fmt: skip
        (self.run / "restore.list").write_text("\n".join((*basis, *lines)) + "\n")

    def environment(self) -> dict[str, str]:
        return {**self.host.environment(root=True), "PATH": path(self.host.root / "bin")}

    def sh(self, *words: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        return subprocess.run([SHELL, *words], input=stdin, capture_output=True, env=self.environment(), timeout=60)

    def restore(self, *words: str, dropped: bool = False) -> subprocess.CompletedProcess[bytes]:
        return self.sh("-c", f'KU_DROPPED={"yes" if dropped else "no"} . "$0"', str(self.run / "restore.sh"), *words)

    def dump(self, login: str = "", uri: str = "mongodb://127.0.0.1:27017/") -> subprocess.CompletedProcess[bytes]:
        script = Script.load(
            "komodo.sh",
            "database/dump_database.sh",
            folder=str(self.run),
            label="final",
            container="db",
            uri=uri,
            database="komodo",
            login="login" if login else "open",
        )
        return self.sh(*words_of(script), stdin=login.encode())

    def calls(self, *words: str) -> int:
        """How many commands held these words, one after the other."""
        return sum(" ".join(words) in " ".join(entry.argv) for entry in self.host.commands)

    def program(self, name: str, text: str) -> None:
        """A program that the sandbox does not simulate."""
        file = self.host.root / "bin" / name
        file.unlink(missing_ok=True)
        file.write_text(text)
        file.chmod(0o755)


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    made = Stage(tmp_path)
    yield made
    LocalHosts.of_session().run(made.engine.stop_all())
    assert made.host.world.defects == []


@pytest.mark.parametrize("holder", ["at work", "killed"])
def test_two_services_of_a_project_are_not_started_at_the_same_time(stage: Stage, holder: str) -> None:
    stage.container("db", "busybox")
    with subprocess.Popen(["sleep", "60"]) as other:
        turn = stage.run / "compose-turn"
        turn.mkdir()
        (turn / "pid").write_text(f"{other.pid}\n")
        folder, words = str(stage.run), ("docker", "compose")
        script = Script.load(
            "komodo.sh", "core/start_core.sh", *words, folder=folder, directory=folder, service="core", database="db"
        )
        started = subprocess.Popen([SHELL, *words_of(script)], env=stage.environment(), stdout=subprocess.PIPE)
        if holder == "at work":
            with pytest.raises(subprocess.TimeoutExpired):
                started.wait(1)
            assert not stage.calls("up", "-d")
            (turn / "pid").unlink()
            turn.rmdir()
        other.kill()
        other.wait()
        output, _ = started.communicate(timeout=30)
    assert started.returncode == 0
    assert b"started" in output
    assert stage.calls("up", "-d", "--no-deps", "core") == 1
    assert not turn.exists()


@pytest.mark.parametrize("source", ["uri", "variable", "file", "initdb"])
def test_the_password_reaches_mongorestore_on_its_standard_input_only(stage: Stage, source: str) -> None:
    """The database accepts no other password, neither of mongosh, which drops the database, nor of mongorestore."""
    store = stage.database(password=PASSWORD)
    quoted = PASSWORD.replace("\\", "\\\\").replace('"', '\\"')
    assert stage.dump(f'password: "{quoted}"\n', "mongodb://us%40er@127.0.0.1:27017/?authSource=admin").returncode == 0
    store.insert("komodo", "Swarm", [{"name": "of v2"}])
    core = stage.engine.find("core")
    assert core is not None
    lines = ["db_user\tus@er"]
    if source == "uri":
        core.env.append(f"KOMODO_DATABASE_URI=mongodb://us%40er:{ENCODED}@mongo:27017/x?a=b")
        lines.append("db_uri_variable\tKOMODO_DATABASE_URI")
    elif source == "file":
        (stage.run / "pw").write_text(PASSWORD + "\n")
        lines.append(f"db_password_file\t{stage.run}/pw")
    else:
        if source == "variable":
            core.env.append(f"KOMODO_DATABASE_PASSWORD={PASSWORD}")
        lines.append("db_password_variable\tKOMODO_DATABASE_PASSWORD")
    stage.list(*lines)
    done = stage.restore("database")
    assert done.returncode == 0, done.stderr
    assert list(store.databases["komodo"]) == ["Server"], "dropped by mongosh, then restored"
    assert len(store.find("komodo", "Server")) == 3
    output = repr([entry.argv for entry in stage.host.commands]) + done.stdout.decode() + done.stderr.decode()
    assert PASSWORD not in output
    assert ENCODED not in output
    assert (stage.run / "database-restored").read_text() == f"{stage.run}/dumps/final.archive.gz\n"


@pytest.mark.parametrize("documents", [[], [{"_id": 1}, {"_id": 1}]], ids=["nothing restored", "one failed"])
def test_an_incomplete_restore_is_no_success(stage: Stage, documents: list[dict[str, int]]) -> None:
    stage.database().collection("komodo", "Server").documents = [*documents]
    assert stage.dump().returncode == 0
    stage.list()
    done = stage.restore("database")
    assert done.returncode == 1
    assert b"the dump is still" in done.stderr
    assert not (stage.run / "database-restored").exists()


def test_the_database_is_kept_where_the_new_version_never_ran(stage: Stage) -> None:
    stage.list()
    (stage.run / "core-v2-started").unlink()
    assert b"the database is as it was" in stage.restore("database").stdout
    assert stage.host.commands == []


def test_a_damaged_dump_is_not_restored(stage: Stage) -> None:
    stage.list()
    (stage.run / "dumps" / "final.archive.gz").write_bytes(gzip.compress(os.urandom(4000))[:2000])
    done = stage.restore("database")
    assert done.returncode == 1
    assert b"is damaged" in done.stderr


def test_a_dump_never_overwrites_another_and_the_newest_counts(stage: Stage) -> None:
    stage.database()
    stage.list()
    assert b"dumped\tkomodo.Server (3 documents)" in stage.dump().stdout
    first = (stage.run / "dumps/final.archive.gz").read_bytes()
    second = stage.run / "dumps/final.2.archive.gz"
    assert f"path\t{second}".encode() in stage.dump().stdout
    assert (stage.run / "dumps/final.archive.gz").read_bytes() == first
    assert b"from " + str(second).encode() in stage.restore("database").stdout


def test_a_password_in_an_error_of_mongodump_is_masked(stage: Stage) -> None:
    stage.database(password=PASSWORD)
    done = stage.dump(uri="mongodb://us%40er:geheim@127.0.0.1:27017/?authSource=admin")
    assert done.returncode == 1
    assert b"Authentication failed" in done.stderr
    assert b"geheim" not in done.stderr
    assert list((stage.run / "dumps").iterdir()) == []


def test_compose_is_called_as_it_was_found(stage: Stage) -> None:
    for name in ("x.yaml", "y z.yaml"):
        (stage.run / name).write_text(COMPOSE)
    (stage.run / ".env").touch()
    a = stage.run
    stage.list(
        f"compose_file\t{a}/x.yaml", f"compose_file\t{a}/y z.yaml", f"env_file\t{a}/.env", "project_directory\t/a"
    )
    assert stage.restore("stop").returncode == 0
    options = f"-p komodo -f {a}/x.yaml -f {a}/y z.yaml --env-file {a}/.env --project-directory {a} stop core"
    assert stage.calls(f"docker compose {options}") == 1
    text = (stage.run / "restore.list").read_text().replace("compose\tdocker compose", "compose\tdocker-compose")
    (stage.run / "restore.list").write_text(text)
    stage.program("docker-compose", f'#!/bin/sh\necho "$*" >{a}/calls\n')
    assert stage.restore("stop").returncode == 0
    assert (a / "calls").read_text() == f"{options}\n"


def test_files_are_restored_with_owner_and_mode(stage: Stage) -> None:
    live = stage.run / "compose.env"
    live.write_text("new\n")
    live.chmod(0o640)
    saved = stage.run / "files" / "compose.env"
    saved.write_text("old\n")
    stage.list(f"saved\t{hashlib.sha256(b'old' + bytes([10])).hexdigest()}\tcompose.env\t{live}")
    shown = stage.restore("--dry-run", "files")
    assert b"restoring" in shown.stdout
    assert live.read_text() == "new\n"
    assert stage.restore("files").returncode == 0
    assert (live.read_text(), oct(live.stat().st_mode & 0o777)) == ("old\n", "0o640")
    saved.write_text("tampered\n")
    live.write_text("new\n")
    done = stage.restore("files")
    assert done.returncode == 1
    assert b"is not what was saved" in done.stderr
    assert live.read_text() == "new\n"


def test_usage(stage: Stage) -> None:
    stage.list()
    assert stage.restore("everything").returncode == 2


class Km:
    """A Core on FerretDB, without mongodump: km in a container, whose files are those of a dump."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.postgres = stage.container("pg-1", "ghcr.io/ferretdb/postgres-documentdb:17", start=True)
        url = f"postgres://us%40er:{ENCODED}@postgres:5432/postgres"
        image = "ghcr.io/ferretdb/ferretdb:2.7.0"
        database = stage.container("db", image, f"FERRETDB_POSTGRESQL_URL={url}", start=True, aliases=("ferretdb",))
        server = database_of(database)
        assert server is not None
        self.store = server.store
        self.store.insert("komodo", "Swarm", [{"name": "of v2"}])
        core = stage.container(
            "old-core", "ghcr.io/moghtech/komodo-core:1.19.5", f"KOMODO_DATABASE_PASSWORD={PASSWORD}"
        )
        self.image = core.image.id
        stage.list(
            "db_network\tkomodo_default", "db_host\tferretdb:27017", "db_user\tus@er",
            "db_password_variable\tKOMODO_DATABASE_PASSWORD",
        )  # fmt: skip
        listed = (stage.run / "restore.list").read_text()
        listed = listed.replace("core_image_id\tsha256:abc", f"core_image_id\t{self.image}")
        (stage.run / "restore.list").write_text(listed.replace("core_container\tcore", "core_container\told-core"))
        self.dump = stage.run / "dumps" / "final.km.tar"
        self.pack('{"_id": {"$oid": "65a000000000000000000001"}}\n')

    def pack(self, servers: str, *, stats: bool = True) -> None:
        """A dump with these documents. km fails for a collection without its file."""
        folder = self.stage.run / "made"
        (folder / "2026-11-23_22-00-00").mkdir(parents=True, exist_ok=True)
        (folder / "2026-11-23_22-00-00/Server.gz").write_bytes(gzip.compress(servers.encode()))
        (folder / "Stats.gz").unlink(missing_ok=True)
        if stats:
            (folder / "Stats.gz").write_bytes(gzip.compress(b""))
        subprocess.run(["tar", "-C", folder, "-cf", self.dump, "."], check=True)

    @property
    def dumps(self) -> list[str]:
        return sorted(p.name for p in (self.stage.run / "dumps").iterdir())


@pytest.fixture
def km(stage: Stage) -> Km:
    return Km(stage)


def test_km_restores_where_there_is_no_mongorestore(km: Km) -> None:
    done = km.stage.restore("database")
    assert done.returncode == 0, done.stderr
    assert list(km.store.databases["komodo"]) == ["Server"], "dropped, then restored"
    output = repr([entry.argv for entry in km.stage.host.commands]) + done.stdout.decode() + done.stderr.decode()
    assert PASSWORD not in output
    assert (km.stage.run / "database-restored").read_text() == f"{km.dump}\n"
    assert km.dumps == ["final.km.tar"]


@pytest.mark.parametrize(
    ("servers", "stats", "why"),
    [
        ('{"_id": {"$oid": "65a000000000000000000001"}}\n', False, b"every collection"),
        ("", True, b"km restored nothing"),
    ],
)
def test_an_incomplete_restore_by_km_is_no_success(km: Km, servers: str, stats: bool, why: bytes) -> None:
    km.pack(servers, stats=stats)
    done = km.stage.restore("database")
    assert done.returncode == 1
    assert why in done.stderr
    assert not (km.stage.run / "database-restored").exists()
    assert km.dumps == ["final.km.tar"]


def test_a_database_that_km_cannot_drop_or_restore(km: Km) -> None:
    LocalHosts.of_session().run(km.stage.engine.remove(km.postgres))
    assert b"could not be dropped" in km.stage.restore("database").stderr
    km.stage.host.world.faults.set("km-fails", km.stage.host.name, {})
    assert b"km ended with 1" in km.stage.restore("database", dropped=True).stderr
    km.stage.program("docker", "#!/bin/sh\n[ $1 != run ] || echo 'ERROR: mongodb://u:geheim@h: no'\nexit 1\n")
    again = km.stage.restore("database", dropped=True)
    assert again.returncode == 1
    assert b"geheim" not in again.stdout + again.stderr
    assert not (km.stage.run / "database-restored").exists()


@pytest.mark.parametrize("name", ["dump_by_km.sh", "prove_by_km.sh"])
def test_a_km_whose_script_is_terminated_ends_too(km: Km, name: str) -> None:
    """Its container would outlive the docker command that started it, and write what is dropped in the meantime."""
    world, hangs = km.stage.host.world, threading.Event()

    def hang(host: str, argv: tuple[str, ...]) -> None:
        if argv[1] == "run":
            world.faults.set("hang", host, {})
            hangs.set()

    world.watchers.append(hang)
    params = {"image": km.image, "network": "komodo_default"}
    if name == "dump_by_km.sh":
        params |= {"folder": str(km.stage.run), "label": "before", "database": "komodo"}
    else:
        params |= {"archive": str(km.dump)}
    script = Script.load("komodo.sh", f"database/{name}", **params)
    env = km.stage.environment()
    running = subprocess.Popen([SHELL, *words_of(script)], stdin=subprocess.DEVNULL, env=env)
    assert hangs.wait(20)
    assert km.stage.calls("rm", "-f", "komodo-upgrade-km") == 1
    world.faults.heal("hang")
    running.terminate()
    assert running.wait(20) == 143
    assert km.stage.calls("rm", "-f", "komodo-upgrade-km") == 2
    assert km.dumps == ["final.km.tar"]


def test_parts_arrive_whole_or_not_at_all(stage: Stage) -> None:
    def save(json_bytes: str) -> subprocess.CompletedProcess[bytes]:
        folder = str(stage.run)
        script = Script.load(
            "komodo.sh", "fleet/save_report.sh", folder=folder, markdown_bytes="4", json_bytes=json_bytes
        )
        return stage.sh(*words_of(script), stdin="ü\n!{}\n".encode())

    done = save("3")
    assert done.returncode == 0, done.stderr
    assert (stage.run / "report.md").read_text() == "ü\n!"
    assert json.loads((stage.run / "report.json").read_text()) == {}
    short = save("9")
    assert short.returncode == 74
    assert not [p for p in stage.run.iterdir() if "parts" in p.name or p.name.endswith(".part")]


OLD_COMPOSE = """#!/bin/sh
case $* in
*--images*) printf 'Validate and view the Compose file.\\n\\nUsage: config [options]\\n' >&%s ;;
*) printf 'services:\\n  core:\\n    image: ghcr.io/moghtech/komodo-core:latest\\nversion: "3"\\n' ;;
esac
"""


@pytest.mark.parametrize("stream", ["1", "2"])
def test_the_usage_of_compose_1_29_is_no_image(stage: Stage, stream: str) -> None:
    """As Debian's docker-compose 1.29.2 does where it is asked for `config --images`."""
    stage.program("docker-compose", OLD_COMPOSE % stream)
    compose = ("docker-compose", "-p", "komodo")
    script = Script.load("komodo.sh", "core/survey_project.sh", *compose, directory=str(stage.run), core="core")
    done = stage.sh(*words_of(script))
    assert done.returncode == 0, done.stderr
    assert [line for line in done.stdout.decode().splitlines() if line.startswith("image")] == [
        "image\tghcr.io/moghtech/komodo-core:latest"
    ]
