"""`docker cp`: between a host's folder and what a container sees (its own files, binds, volumes)."""

from __future__ import annotations

import io
import shutil
import tarfile
from pathlib import Path

from sandbox.docker.engine import Engine
from sandbox.machine.call import Call


async def copy(call: Call, engine: Engine, argv: list[str]) -> int:
    """`docker cp [-a] [-q] SRC DST`; one side is CONTAINER:PATH, the other a path or `-`."""
    words = [a for a in argv if not a.startswith("-") or a == "-"]
    if len(words) != 2:
        call.err("docker: 'docker cp' requires 2 arguments\n")
        return 1
    source, target = words
    if ":" in source and not source.startswith(("/", ".")):
        return await _out(call, engine, source, target)
    return await _in(call, engine, source, target)


def _place(call: Call, engine: Engine, word: str) -> tuple[Path, str] | None:
    name, _, inside = word.partition(":")
    container = engine.find(name)
    if container is None:
        call.err(f"Error response from daemon: No such container: {name}\n")
        return None
    return container.locate(inside), inside


async def _out(call: Call, engine: Engine, source: str, target: str) -> int:
    place = _place(call, engine, source)
    if place is None:
        return 1
    path, inside = place
    if not path.exists():
        container = source.partition(":")[0]
        call.err(f"Error response from daemon: Could not find the file {inside} in container {container}\n")
        return 1
    if target == "-":
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as tar:
            tar.add(path, arcname=Path(inside).name)
        call.out(buffer.getvalue())
        return 0
    return _transfer(call, path, Path(call.cwd) / target, Path(inside).name)


async def _in(call: Call, engine: Engine, source: str, target: str) -> int:
    place = _place(call, engine, target)
    if place is None:
        return 1
    path, inside = place
    if source == "-":
        path.mkdir(parents=True, exist_ok=True)
        with tarfile.open(fileobj=io.BytesIO(await call.read())) as tar:
            tar.extractall(path, filter="data")
        return 0
    real = Path(call.cwd) / source
    if not real.exists():
        call.err(f"lstat {real}: no such file or directory\n")
        return 1
    if not path.parent.is_dir() and inside.count("/") > 1:
        name = target.partition(":")[0]
        call.err(f"Error response from daemon: Could not find the file {Path(inside).parent} in container {name}\n")
        return 1
    return _transfer(call, real, path, real.name)


def _transfer(call: Call, source: Path, target: Path, name: str) -> int:
    if why := call.host.refuses(target):
        call.err(f"write {target}: {why}\n")
        return 1
    if target.is_dir():
        target = target / name
    if source.is_dir():
        shutil.copytree(source, target, dirs_exist_ok=True)
    else:
        shutil.copyfile(source, target)
        shutil.copymode(source, target)
    return 0
