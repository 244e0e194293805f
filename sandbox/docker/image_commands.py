"""`docker pull`, `images`, `image inspect`, `buildx imagetools inspect`, `tag` and `rmi`."""

from __future__ import annotations

import asyncio

from sandbox.docker.engine import Engine
from sandbox.docker.images import split
from sandbox.docker.output import print_values
from sandbox.machine.call import Call, options

PULL_SECONDS = 1.5
"""How long a pull takes at speed 1."""


async def pull_image(engine: Engine, reference: str) -> str:
    """Pull; returns the daemon's complaint, empty when it is here now."""
    world = engine.host.world
    repository, tag, digest = split(reference)
    site = repository.split("/")[0] if "." in repository.split("/")[0] else "registry-1.docker.io"
    await asyncio.sleep(world.scaled(PULL_SECONDS) if engine.store.find(reference) is None else 0.01)
    if world.faults.strike("pull-fails", engine.host.name):
        return f'Get "https://{site}/v2/": context deadline exceeded (Client.Timeout exceeded while awaiting headers)'
    image = engine.store.published(reference)
    if image is None:
        return f'failed to resolve reference "{repository}:{tag or digest}": {repository}:{tag or digest}: not found'
    if why := engine.host.refuses(engine.folder):
        return f"write {engine.folder}/tmp/GetImageBlob12345: {why}"
    engine.store.add(image)
    return ""


async def inspect(call: Call, engine: Engine, argv: list[str]) -> int:
    """`docker image inspect REF…`."""
    found, names = options(argv, "-f --format")
    values, code = [], 0
    for name in names:
        image = engine.store.find(name)
        if image is None:
            call.err(f"Error response from daemon: No such image: {name}\n")
            code = 1
        else:
            values.append(image.inspect())
    return print_values(call, found, values, code)


async def pull(call: Call, engine: Engine, argv: list[str]) -> int:
    """`docker pull REF`."""
    found, names = options(argv, "--platform")
    quiet = "-q" in found or "--quiet" in found
    reference = names[0]
    repository, tag, digest = split(reference)
    before = engine.store.find(reference)
    before_id = before.id if before else ""
    if not quiet and not digest:
        if ":" not in reference.rpartition("/")[2]:
            call.out("Using default tag: latest\n")
        call.out(f"{tag}: Pulling from {repository.removeprefix('ghcr.io/')}\n")
    complaint = await pull_image(engine, reference)
    if complaint:
        call.err(f"Error response from daemon: {complaint}\n")
        return 1
    image = engine.store.find(reference)
    assert image is not None
    if not quiet:
        word = "Image is up to date" if image.id == before_id else "Downloaded newer image"
        call.out(f"Digest: {image.digest}\nStatus: {word} for {reference}\n")
    full = reference if "/" in reference else f"docker.io/library/{reference}"
    call.out(f"{full if ':' in full.rpartition('/')[2] or digest else full + ':latest'}\n")
    return 0


async def image_tools(call: Call, engine: Engine, argv: list[str]) -> int:
    """`docker buildx imagetools inspect REF`: what the registry has, without pulling it."""
    reference = argv[1] if argv[:1] == ["inspect"] and len(argv) == 2 else ""
    image = engine.store.published(reference) if reference else None
    if image is None:
        call.err(f"ERROR: {reference}: not found\n")
        return 1
    call.out(
        f"Name:      {reference}\nMediaType: application/vnd.oci.image.index.v1+json\nDigest:    {image.digest}\n"
        f"           \nManifests: \n  Name:        {reference}@sha256:{'0' * 64}\n"
    )
    return 0


async def tag(call: Call, engine: Engine, argv: list[str]) -> int:
    """`docker tag SOURCE TARGET`."""
    image = engine.store.find(argv[0]) if len(argv) == 2 else None
    if image is None:
        call.err(f"Error response from daemon: No such image: {argv[0] if argv else ''}\n")
        return 1
    engine.store.tag(image, argv[1])
    return 0


async def remove(call: Call, engine: Engine, argv: list[str]) -> int:
    """`docker rmi REF…`."""
    _, names = options(argv, "")
    for name in names:
        image = engine.store.find(name)
        if image is None:
            call.err(f"Error response from daemon: No such image: {name}\n")
            return 1
        users = [c for c in engine.containers.values() if c.image is image]
        if users:
            call.err(
                f'Error response from daemon: conflict: unable to remove repository reference "{name}" (must force)'
                f" - container {users[0].id[:12]} is using its referenced image {image.id[7:19]}\n"
            )
            return 1
        del engine.store.images[image.id]
        call.out(f"Untagged: {name}\nDeleted: {image.id}\n")
    return 0
