"""A tag that is moved, or a registry that serves another image: what runs is what was approved, by digest."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from model.errors import ArtifactError
from model.facts import CoreFacts
from model.plan import RECORDED, record_images
from model.planning import make_plan
from model.text.plan import artifact_lines
from sandbox.docker.image_commands import pull_image
from sandbox.docker.images import digest_of
from tests.activities.core_fleet import Bench, bench

CORE = "ghcr.io/moghtech/komodo-core"


@pytest.fixture
async def b(tmp_path: Path) -> AsyncIterator[Bench]:
    async with bench(tmp_path, speed=20) as one:
        yield one


def _move_tag(b: Bench) -> None:
    """The publisher, a bot or whoever answers for the registry lets the tag name another image."""
    b.sandbox.engine.store.registry[CORE]["2.3.2"] = "2.3.3"


def _lines(b: Bench, core: CoreFacts) -> tuple[str, ...]:
    return artifact_lines(make_plan(b.fleet, "c", core, {}))


async def test_a_tag_that_moves_between_the_plan_and_the_pull(b: Bench) -> None:
    planned = await b.planned()
    assert planned.core is not None
    assert planned.core.target_digest == digest_of(CORE, "2.3.2")
    assert f"image {CORE}:2.3.2: {planned.core.target_digest}, as ghcr.io has it" in _lines(b, planned)
    assert planned.database is not None
    assert any(planned.database.image_id in line and "stays" in line for line in _lines(b, planned))
    await b.backup.back_up_core(b.step)
    _move_tag(b)
    with pytest.raises(ArtifactError, match="but the plan has sha256") as caught:
        await b.core.stage_core(b.step)
    assert "nothing was changed" in str(caught.value)
    moved = await b.survey()
    plans = [make_plan(b.fleet, "c", core, {}) for core in (planned, moved)]
    assert plans[0].digest != plans[1].digest, "the image is a part of what is approved"


async def test_a_tag_that_is_pulled_again_after_the_approval(b: Bench) -> None:
    await b.staged()
    _move_tag(b)
    assert await pull_image(b.sandbox.engine, f"{CORE}:2.3.2") == ""
    drift = (await b.preflight.recheck_core(b.step)).drift
    assert any(f"the image {CORE}:2.3.2 is not {b.step.facts.core.target_digest} any more" in d for d in drift)
    # The recheck was a moment too early: Core starts in the approved image nevertheless.
    await b.core.stop_core(b.step)
    await b.core.write_core_files(b.to_write())
    assert (await b.core.start_core(b.step)).version == "2.3.2"


async def test_another_image_that_runs_is_not_taken_for_the_approved_one(b: Bench) -> None:
    await b.staged()
    other = replace(b.step.facts.core, target_digest="sha256:" + "0" * 64)
    b.step = replace(b.step, facts=replace(b.step.facts, core=other))
    await b.core.stop_core(b.step)
    await b.core.write_core_files(b.to_write())
    with pytest.raises(Exception, match=re.escape(f"{CORE}@sha256:000")):
        await b.core.start_core(b.step)


async def test_a_digest_that_the_registry_does_not_tell_is_recorded_at_the_pull(b: Bench) -> None:
    published = b.sandbox.engine.store.published
    b.sandbox.engine.store.published = lambda reference: None  # type: ignore[method-assign]
    facts = await b.planned()
    b.sandbox.engine.store.published = published  # type: ignore[method-assign]
    assert "image-digest-unknown" in [f.code for f in facts.findings]
    plan = make_plan(b.fleet, "c", facts, {})
    await b.backup.back_up_core(b.step)
    staged = await b.core.stage_core(b.step)
    known = record_images(plan, dict(zip(staged.images, staged.digests, strict=True)))
    bound = make_plan(b.fleet, "c", known.core, {})
    assert bound.digest != plan.digest
    assert f"image {CORE}:2.3.2: {digest_of(CORE, '2.3.2')}, {RECORDED}" in artifact_lines(bound)
    assert record_images(bound, {f"{CORE}:2.3.2": "sha256:" + "1" * 64}) == bound, "the first digest counts"
