"""Digests of images: which one a registry serves, and which one a host has.

A digest is that of the manifest which a tag names, so it is the same on hosts of every architecture.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace

from komodo.compose.reference import parse
from komodo.core.containers import info
from model.facts import Finding, ServiceFacts


def published_digests(lines: Iterable[str]) -> Mapping[str, str]:
    """Image → digest from the output of published_digests.sh."""
    pairs = (line.partition(" ") for line in lines)
    return {image: digest for image, _, digest in pairs if digest}


def local_digests(inspected: str) -> Mapping[str, tuple[str, ...]]:
    """Image id → its digests, from `docker image inspect`. Raises ValueError if that is no JSON."""
    found = {}
    for entry in json.loads(inspected or "[]"):
        named = (str(name).rpartition("@")[2] for name in entry.get("RepoDigests") or ())
        found[str(entry.get("Id", ""))] = tuple(dict.fromkeys(named))
    return found


def with_target_digest(facts: ServiceFacts, digests: Mapping[str, str]) -> ServiceFacts:
    """The service with the digest that its new image must have: from the compose file, else from the registry."""
    image = parse(facts.target_image)
    if image.digest:
        return replace(facts, target_digest=image.digest, target_digest_source="as the compose file requires")
    digest = digests.get(facts.target_image, "")
    source = f"as {image.registry or 'the registry'} has it" if digest else ""
    return replace(facts, target_digest=digest, target_digest_source=source)


def approved_reference(facts: ServiceFacts) -> str:
    """NAME@DIGEST of the approved image; empty where the compose file itself holds the digest, or none is known."""
    image = parse(facts.target_image)
    return "" if image.digest or not facts.target_digest else f"{image.name}@{facts.target_digest}"


def unresolved(services: Iterable[ServiceFacts | None]) -> tuple[Finding, ...]:
    """Say which images get their digest only once they are pulled."""
    images = dict.fromkeys(s.target_image for s in services if s and s.target_image and not s.target_digest)
    text = "the host could not ask the registry for the digest of {}: gate `core` shows the one that is pulled"
    return tuple(info("image-digest-unknown", text.format(image)) for image in images)
