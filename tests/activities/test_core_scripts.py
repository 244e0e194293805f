"""Scripts of Core's host alone under dash, with a docker that writes down what it is asked and what it is fed."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import subprocess
import time
from pathlib import Path

import pytest

from activities.backup import restore_script
from hosts.script import Script
from tests.shells import SHELL, path

FAKE_DOCKER = """#!/bin/sh
# Records argv, one call a line, and standard input of execs.
printf '%s\\n' "${0##*/} $*" >>"$FAKE/calls"
case $* in
"inspect -f "*) cat "$FAKE/env" ;;
"inspect "*db) printf '[{"Id": "abc", "State": {"Running": true}}]\\n' ;;
inspect*) printf '[{"Id": "abc", "State": {"Running": false}}]\\n' ;;
"run "*)
    cat >"$FAKE/run.stdin"
    [ ! -e "$FAKE/hang" ] || { : >"$FAKE/hangs"; exec sleep 30; }
    cat "$FAKE/said"; exit "$(cat "$FAKE/code")" ;;
*psql*) exit "$(cat "$FAKE/code")" ;;
"ps "*) echo "pg-1 postgres-documentdb:17" ;;
*mongosh\\ --version*) [ -e "$FAKE/mongosh" ] || exit 126 ;;
*mongosh*) cat >"$FAKE/mongosh.stdin" ;;
*mongorestore*) cat >"$FAKE/mongorestore.stdin"; cat "$FAKE/said" >&2 ;;
*mongodump*) cat >"$FAKE/mongodump.stdin"; cat "$FAKE/archive"; cat "$FAKE/said" >&2; exit "$(cat "$FAKE/code")" ;;
esac
"""


class Stage:
    """A run folder and a fake docker in PATH."""

    def __init__(self, folder: Path) -> None:
        self.run = folder / "run"
        self.fake = folder / "fake"
        (self.run / "dumps").mkdir(parents=True)
        (self.run / "files").mkdir()
        self.fake.mkdir()
        for name in ("docker", "docker-compose"):
            (self.fake / name).write_text(FAKE_DOCKER)
            (self.fake / name).chmod(0o755)
        (self.fake / "code").write_text("0")
        (self.fake / "env").write_text("A=1\n")
        (self.fake / "archive").write_bytes(gzip.compress(b"archive"))
        (self.fake / "said").write_text("7 document(s) restored successfully. 0 document(s) failed to restore.\n")
        (self.run / "restore.sh").write_text(restore_script())
        (self.run / "dumps" / "final.archive.gz").write_bytes(gzip.compress(b"archive"))
        (self.run / "core-v2-started").touch()

    def list(self, *lines: str) -> None:
        basis = (
            "version\t1.19.5", "compose\tdocker compose", "project\tkomodo", f"directory\t{self.run}",
            "core_service\tcore", "core_container\tcore", "core_image\tk:1", "core_image_id\tsha256:abc",
            "db_container\tdb", "db_name\tkomodo", "db_port\t27017", "db_auth_source\tadmin",
            "db_uri\tmongodb://us%40er@127.0.0.1:27017/?authSource=admin",
        )  # fmt: skip
        (self.run / "restore.list").write_text("\n".join((*basis, *lines)) + "\n")

    def sh(self, *words: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        env = {**os.environ, "PATH": path(self.fake), "FAKE": str(self.fake)}
        return subprocess.run([SHELL, *words], input=stdin, capture_output=True, env=env)

    def restore(self, *words: str) -> subprocess.CompletedProcess[bytes]:
        return self.sh(str(self.run / "restore.sh"), *words)

    def dump(self) -> subprocess.CompletedProcess[bytes]:
        text = "set -eu\n" + Script.load("komodo.sh", "dump_database.sh").text
        return self.sh("-c", text, "x", str(self.run), "final", "db", "mongodb://u@h/", "komodo", "login", stdin=b"p")

    @property
    def calls(self) -> str:
        return (self.fake / "calls").read_text()


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path)


@pytest.mark.parametrize("holder", ["at work", "killed"])
def test_two_parts_of_a_project_are_not_brought_up_at_the_same_time(stage: Stage, holder: str) -> None:
    with subprocess.Popen(["sleep", "60"]) as other:
        turn = stage.run / "compose-turn"
        turn.mkdir()
        (turn / "pid").write_text(f"{other.pid}\n")
        text = "set -eu\n" + Script.load("komodo.sh", "start_core.sh").text
        words = ("x", str(stage.run), str(stage.run), "core", "db", "docker", "compose")
        env = {**os.environ, "PATH": path(stage.fake), "FAKE": str(stage.fake)}
        started = subprocess.Popen([SHELL, "-c", text, *words], env=env, stdout=subprocess.PIPE)
        if holder == "at work":
            with pytest.raises(subprocess.TimeoutExpired):
                started.wait(1)
            assert " up -d" not in stage.calls
            (turn / "pid").unlink()
            turn.rmdir()
        other.kill()
        other.wait()
        said, _ = started.communicate(timeout=30)
    assert started.returncode == 0
    assert b"started" in said
    assert stage.calls.count(" up -d --no-deps core") == 1
    assert not turn.exists()


PASSWORD = 'p@ss:w/o rd"x\\y%'
ENCODED = "p%40ss%3Aw%2Fo%20rd%22x%5Cy%25"


@pytest.mark.parametrize("source", ["uri", "variable", "file", "initdb"])
def test_the_password_reaches_mongorestore_on_its_standard_input_only(stage: Stage, source: str) -> None:
    (stage.fake / "mongosh").touch()
    lines = ["db_user\tus@er"]
    if source == "uri":
        (stage.fake / "env").write_text(f"KOMODO_DATABASE_URI=mongodb://us%40er:{ENCODED}@mongo:27017/x?a=b\n")
        lines.append("db_uri_variable\tKOMODO_DATABASE_URI")
    elif source == "file":
        (stage.run / "pw").write_text(PASSWORD + "\n")
        lines.append(f"db_password_file\t{stage.run}/pw")
    else:
        name = "KOMODO_DATABASE_PASSWORD" if source == "variable" else "MONGO_INITDB_ROOT_PASSWORD"
        (stage.fake / "env").write_text(f"{name}={PASSWORD}\n")
        lines.append("db_password_variable\tKOMODO_DATABASE_PASSWORD")
    stage.list(*lines)
    done = stage.restore("database")
    assert done.returncode == 0, done.stderr
    fed = (stage.fake / "mongorestore.stdin").read_text()
    assert fed == 'password: "p@ss:w/o rd\\"x\\\\y%"\n'
    shell = (stage.fake / "mongosh.stdin").read_text()
    assert f"mongodb://us%40er:{ENCODED}@127.0.0.1:27017/komodo?authSource=admin" in shell
    assert "db.dropDatabase()" in shell
    said = stage.calls + done.stdout.decode() + done.stderr.decode()
    assert PASSWORD not in said
    assert ENCODED not in said
    assert "mongodb://us%40er@127.0.0.1:27017/" in stage.calls
    assert (stage.run / "database-restored").read_text() == f"{stage.run}/dumps/final.archive.gz\n"


@pytest.mark.parametrize(
    "said", ["0 document(s) restored successfully. 0 document(s) failed", "1 … 3 document(s) failed"]
)
def test_a_restore_that_did_not_restore_is_no_success(stage: Stage, said: str) -> None:
    stage.list()
    (stage.fake / "said").write_text(said)
    done = stage.restore("database")
    assert done.returncode == 1
    assert b"the dump is still" in done.stderr
    assert not (stage.run / "database-restored").exists()


def test_the_database_is_left_alone_where_the_new_version_never_ran(stage: Stage) -> None:
    stage.list()
    (stage.run / "core-v2-started").unlink()
    assert b"the database is as it was" in stage.restore("database").stdout
    assert not (stage.fake / "calls").exists()


def test_a_damaged_dump_is_not_restored(stage: Stage) -> None:
    stage.list()
    (stage.run / "dumps" / "final.archive.gz").write_bytes(gzip.compress(os.urandom(4000))[:2000])
    done = stage.restore("database")
    assert done.returncode == 1
    assert b"is damaged" in done.stderr


def test_the_newest_final_dump_counts(stage: Stage) -> None:
    stage.list()
    (stage.run / "dumps" / "final.2.archive.gz").write_bytes(gzip.compress(b"newer"))
    assert b"from " + str(stage.run / "dumps" / "final.2.archive.gz").encode() in stage.restore("database").stdout


def test_compose_is_called_as_it_was_found(stage: Stage) -> None:
    stage.list("compose_file\t/a/x.yaml", "compose_file\t/a/y z.yaml", "env_file\t/a/.env", "project_directory\t/a")
    assert stage.restore("stop").returncode == 0
    words = "compose -p komodo -f /a/x.yaml -f /a/y z.yaml --env-file /a/.env --project-directory"
    assert f"docker {words} {stage.run} stop core\n" in stage.calls
    text = (stage.run / "restore.list").read_text().replace("compose\tdocker compose", "compose\tdocker-compose")
    (stage.run / "restore.list").write_text(text)
    stage.restore("stop")
    assert "docker-compose -p komodo" in stage.calls


def test_files_come_back_with_owner_and_mode(stage: Stage) -> None:
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


def test_a_dump_never_overwrites_another(stage: Stage) -> None:
    (stage.fake / "said").write_text("done dumping komodo.Server (3 documents)\n")
    done = stage.dump()
    assert done.returncode == 0, done.stderr
    assert f"path\t{stage.run}/dumps/final.2.archive.gz" in done.stdout.decode()
    assert "dumped\tkomodo.Server (3 documents)" in done.stdout.decode()
    assert (stage.fake / "mongodump.stdin").read_text() == "p"
    assert gzip.decompress((stage.run / "dumps" / "final.archive.gz").read_bytes()) == b"archive"


@pytest.mark.parametrize(
    ("archive", "said", "code", "expected"),
    [
        (gzip.compress(b"x", mtime=0), "", 0, 65),
        (gzip.compress(b"x", mtime=0), "done dumping other.Server (3 documents)", 0, 65),
        (gzip.compress(os.urandom(999))[:500], "done dumping komodo.Server (3 documents)", 0, 65),
        (b"", "Failed: mongodb://u:geheim@h: no", 1, 1),
        (b"", "Failed: write /dev/stdout: no space left on device", 1, 70),
    ],
)
def test_a_dump_that_proves_nothing_is_not_kept(
    stage: Stage, archive: bytes, said: str, code: int, expected: int
) -> None:
    (stage.fake / "archive").write_bytes(archive)
    (stage.fake / "said").write_text(said + "\n")
    (stage.fake / "code").write_text(str(code))
    done = stage.dump()
    assert done.returncode == expected
    assert b"geheim" not in done.stderr
    assert [p.name for p in (stage.run / "dumps").iterdir()] == ["final.archive.gz"]


class Km:
    """A Core without mongodump beside it: km in a container, whose files are those of a dump."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        stage.list(
            "db_network\tkomodo_default", "db_host\tferretdb:27017", "db_user\tus@er",
            "db_password_variable\tKOMODO_DATABASE_PASSWORD",
        )  # fmt: skip
        (stage.fake / "env").write_text(f"KOMODO_DATABASE_PASSWORD={PASSWORD}\n")
        (stage.fake / "said").write_text("\x1b[32m INFO\x1b[0m [Server]: Restored 1 items\nFinished ✅\n")
        made = stage.run / "made" / "2026-11-23_22-00-00"
        made.mkdir(parents=True)
        (made / "Server.gz").write_bytes(gzip.compress(b"{}\n"))
        self.dump = stage.run / "dumps" / "final.km.tar"
        subprocess.run(["tar", "-C", made.parent, "-cf", self.dump, "."], check=True)

    def restored(self, **env: str) -> subprocess.CompletedProcess[bytes]:
        return self.stage.sh(
            "-c", f"{''.join(f'{k}={v} ' for k, v in env.items())}sh {self.stage.run}/restore.sh database"
        )

    @property
    def left(self) -> list[str]:
        return sorted(p.name for p in (self.stage.run / "dumps").iterdir() if p.name != "final.archive.gz")


@pytest.fixture
def km(stage: Stage) -> Km:
    return Km(stage)


def test_km_restores_where_there_is_no_mongorestore(km: Km) -> None:
    done = km.restored()
    assert done.returncode == 0, done.stderr
    fed = (km.stage.fake / "run.stdin").read_text()
    assert f"KOMODO_CLI_DATABASE_TARGET_PASSWORD={PASSWORD}\n" in fed
    assert "KOMODO_CLI_DATABASE_TARGET_ADDRESS=ferretdb:27017\n" in fed
    calls = km.stage.calls
    assert calls.index("drop_database('komodo')") < calls.index("--restore-folder 2026-11-23_22-00-00")
    assert "--network komodo_default" in calls
    assert PASSWORD not in calls + done.stdout.decode() + done.stderr.decode()
    assert (km.stage.run / "database-restored").read_text() == f"{km.dump}\n"
    assert km.left == ["final.km.tar"]


@pytest.mark.parametrize(
    ("said", "code", "why"),
    [
        ("[Server]: Restored 1 items\n ERROR [Update]: Failed to flush documents\n", 0, b"every collection"),
        ("Finished restoring database\n", 0, b"km restored nothing"),
        ("ERROR: mongodb://u:geheim@h: no\n", 1, b"could not be dropped"),
    ],
)
def test_a_restore_by_km_that_did_not_restore(km: Km, said: str, code: int, why: bytes) -> None:
    (km.stage.fake / "said").write_text(said)
    (km.stage.fake / "code").write_text(str(code))
    done = km.restored()
    assert done.returncode == 1
    assert why in done.stderr
    if code:
        again = km.restored(KU_DROPPED="yes")
        assert b"km ended with 1" in again.stderr
        assert b"geheim" not in again.stdout + again.stderr
    assert not (km.stage.run / "database-restored").exists()
    assert km.left == ["final.km.tar"]


@pytest.mark.parametrize("script", ["dump_by_km.sh", "prove_by_km.sh"])
def test_a_km_whose_script_is_stopped_is_ended_too(km: Km, script: str) -> None:
    """Its container would outlive the docker command that started it, and write what is dropped in the meantime."""
    (km.stage.fake / "hang").touch()
    args = [str(km.stage.run), "before", "komodo"] if script == "dump_by_km.sh" else [str(km.dump)]
    text = "set -eu\n" + Script.load("komodo.sh", script).text
    env = {**os.environ, "PATH": path(km.stage.fake), "FAKE": str(km.stage.fake)}
    running = subprocess.Popen([SHELL, "-c", text, "x", *args, "sha256:abc", "net"], stdin=subprocess.DEVNULL, env=env)
    end = time.monotonic() + 20
    while not (km.stage.fake / "hangs").exists():
        assert time.monotonic() < end
        time.sleep(0.02)
    assert km.stage.calls.count("rm -f komodo-upgrade-km") == 1
    running.terminate()
    assert running.wait(20) == 143
    assert km.stage.calls.count("rm -f komodo-upgrade-km") == 2
    assert km.left == ["final.km.tar"]


def test_parts_arrive_whole_or_not_at_all(stage: Stage) -> None:
    text = "set -eu\n" + Script.load("komodo.sh", "save_report.sh").text
    done = stage.sh("-c", text, "x", str(stage.run), "4", "3", stdin="ü\n!{}\n".encode())
    assert done.returncode == 0, done.stderr
    assert (stage.run / "report.md").read_text() == "ü\n!"
    assert json.loads((stage.run / "report.json").read_text()) == {}
    short = stage.sh("-c", text, "x", str(stage.run), "4", "9", stdin="ü\n!{}\n".encode())
    assert short.returncode == 74
    assert not [p for p in stage.run.iterdir() if "parts" in p.name or p.name.endswith(".part")]


OLD_COMPOSE = """#!/bin/sh
case $* in
*--images*) printf 'Validate and view the Compose file.\\n\\nUsage: config [options]\\n' >&%s ;;
*) printf 'services:\\n  core:\\n    image: ghcr.io/moghtech/komodo-core:latest\\nversion: "3"\\n' ;;
esac
"""


@pytest.mark.parametrize("stream", ["1", "2"])
def test_compose_1_29_tells_its_usage_and_ends_well(stage: Stage, stream: str) -> None:
    """As Debian's docker-compose 1.29.2 does where it is asked for `config --images`."""
    (stage.fake / "docker-compose").write_text(OLD_COMPOSE % stream)
    text = "set -eu\n" + Script.load("komodo.sh", "look_at_project.sh").text
    env = {**os.environ, "PATH": path(stage.fake), "FAKE": str(stage.fake)}
    words = ("x", str(stage.run), "core", "", "docker-compose", "-p", "komodo")
    done = subprocess.run([SHELL, "-c", text, *words], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert [line for line in done.stdout.splitlines() if line.startswith("image")] == [
        "image\tghcr.io/moghtech/komodo-core:latest"
    ]
