"""Core's key pair before v2 runs: made once, on Core's host, never readable elsewhere, and used by Core."""

from __future__ import annotations

import asyncio
import re
import shutil
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from activities.core.key_pair import CoreKeys
from activities.fleet.run_folders import Folders
from model.errors import HostError, KeyRejected, PlanChanged
from model.fleet.spec import KeysMount, RolloutMode
from model.steps import ReleaseHosts
from sandbox import keys
from tests.activities.core_fleet import Bench, bench, codes

PRIVATE = re.compile(r"MC4CAQAwBQYDK2VuBCIEI[A-Za-z0-9+/]{43}")


@pytest.fixture
async def b(tmp_path: Path) -> AsyncIterator[Bench]:
    async with bench(tmp_path) as made:
        yield made


async def key_of(b: Bench) -> str:
    """The step as the workflow calls it after the image was pulled; from here on `b` knows the key."""
    key = await CoreKeys(b.hosts).stage_core_key(b.step)
    b.results.append(key)
    b.key = key.public_key
    return b.key


async def test_the_pair_is_made_once_used_by_core_and_never_leaves_the_host(b: Bench) -> None:
    await b.staged()
    public = await key_of(b)
    assert b.sandbox.core is not None
    assert b.sandbox.core.version == "1.19.5", "v1 runs meanwhile"
    assert not (b.project / "keys").exists(), "nothing of the project is touched before the switch"
    staged = b.folder / "staged" / "core.key"
    assert keys.read_private(staged.read_text()) == public
    assert [oct(p.stat().st_mode & 0o777) for p in sorted(staged.parent.glob("core.*"))] == ["0o600", "0o600"]
    assert sorted(p.name for p in staged.parent.glob(".pair*")) == []
    b.next_attempt()
    assert await key_of(b) == public, "planned again: the same pair"
    assert b.ran("run", "km") == 1

    await b.core.stop_core(b.step)
    await b.dumps.dump_database(b.to_dump("final"))
    done = await b.core.write_core_files(b.to_write())
    placed = b.project / "keys" / "core.key"
    assert f"wrote {placed}" in done.facts
    assert placed.read_bytes() == staged.read_bytes()
    assert [oct(p.stat().st_mode & 0o777) for p in sorted(placed.parent.iterdir())] == ["0o600", "0o600"]
    b.next_attempt()
    await b.core.write_core_files(b.to_write())
    await b.core.start_core(b.step)
    key = await b.core.read_core_key(b.to_read())
    assert (key.public_key, b.sandbox.core.public_key) == (public, public)
    assert len([s for s in key.sources if not s.startswith("core.key")]) == 3, "API, log and core.pub agree"
    assert (b.folder / "core.key").read_bytes() == placed.read_bytes()

    (private,) = b.sandbox.world.minted
    said = (
        repr([*b.results, done, key]) + repr([r.argv for r in b.sandbox.journal]) + str(b.sandbox.hosts["core"].shells)
    )
    jobs = "".join(p.read_text(errors="replace") for p in (b.folder / "jobs").rglob("*") if p.is_file())
    assert public in said
    assert public in jobs
    assert not PRIVATE.search(said + jobs)
    holders = {p.name for p in b.sandbox.folder.rglob("*") if p.is_file() and private in p.read_text(errors="replace")}
    assert holders == {"core.key"}


async def test_a_pair_that_is_there_is_never_made_again(b: Bench) -> None:
    """As after a rollback: the next run, under another change, finds what v2 Core used."""
    folder = b.project / "keys"
    public, new = keys.ensure_pair(folder / "core.key")
    assert new
    await b.staged()
    assert await key_of(b) == public
    assert b.ran("run", "km") == 0
    assert "found" in b.results[-1].sources[0]
    before = (folder / "core.key").read_bytes()
    await b.core.write_core_files(b.to_write())
    assert (folder / "core.key").read_bytes() == before

    (folder / "core.pub").unlink()
    b.next_attempt()
    with pytest.raises(KeyRejected, match=r"no core\.pub next to it") as caught:
        await key_of(b)
    assert "openssl pkey" in caught.value.hint
    (folder / "core.key").write_text("")
    with pytest.raises(HostError, match="publicly known"):
        await key_of(b)


async def test_an_upgrade_that_ends_before_its_switch_leaves_nothing(b: Bench) -> None:
    await b.staged()
    facts = b.step.facts
    assert facts.core is not None
    b.step = replace(b.step, facts=replace(facts, core=replace(facts.core, target_image=facts.core.image)))
    with pytest.raises(HostError, match="could not be created") as reported:
        await key_of(b)
    assert "km --version" in reported.value.hint, "an image without km key generate"
    assert not list((b.folder / "staged").glob("core.*"))

    b.step = replace(b.step, facts=facts)
    await key_of(b)
    keys.ensure_pair(b.project / "keys" / "core.key")
    before = {p.name: p.read_bytes() for p in b.project.rglob("*") if p.is_file()}
    with pytest.raises(PlanChanged, match="not the staged key"):
        await b.core.write_core_files(b.to_write())
    assert {p.name: p.read_bytes() for p in b.project.rglob("*") if p.is_file()} == before

    await Folders(b.hosts).release_host(ReleaseHosts(op=b.step.op, core=b.fleet.core))
    (private,) = b.sandbox.world.minted
    found = [p for p in b.sandbox.folder.rglob("*") if p.is_file() and private in p.read_text(errors="replace")]
    assert found == []


async def test_preflight_refuses_what_cannot_be_done_all_at_once(b: Bench) -> None:
    together = replace(b.fleet, rollout=replace(b.fleet.rollout, mode=RolloutMode.ALL_AT_ONCE))
    b.fleet = together
    assert not {c for c in codes(await b.survey()) if c.startswith("all-at-once")}
    b.fleet = replace(together, core=replace(together.core, keys_mount=KeysMount.VOLUME))
    assert "together-keys-volume" in codes(await b.survey())
    b.fleet = together
    folder = b.project / "keys"
    keys.ensure_pair(folder / "core.key")
    assert not {c for c in codes(await b.survey()) if c.startswith("all-at-once")}, "a pair of before is taken"
    public, private = (folder / "core.pub").read_text(), (folder / "core.key").read_text()
    keys.ensure_pair(folder / "other.key")
    for name, text, words in (
        ("core.pub", (folder / "other.pub").read_text(), "does not belong to the core.key"),
        ("core.pub", "", "no core.pub next to it"),
        ("core.pub", "nonsense", "not a PEM file"),
        ("core.key", "", "publicly known"),
    ):
        (folder / name).write_text(text)
        found = [f.text for f in (await b.survey()).findings if f.code == "all-at-once-key-pair"]
        assert len(found) == 1, name
        assert words in found[0]
        assert not PRIVATE.search(found[0])
        (folder / "core.pub").write_text(public)
        (folder / "core.key").write_text(private)
    await b.staged()
    (folder / "core.pub").write_text((folder / "other.pub").read_text())
    with pytest.raises(KeyRejected, match="does not belong"):
        await key_of(b)
    shutil.rmtree(folder)
    env = b.project / "compose.env"
    env.write_text(env.read_text() + "KOMODO_PRIVATE_KEY=file:/run/secrets/key\n")
    up = "sudo docker compose -p komodo -f mongo.compose.yaml --env-file compose.env up -d --no-deps core"
    done = await b.manual_command(f"cd {b.project} && {up}")
    assert done.exit_status == 0, done.stderr
    for _ in range(100):
        if "together-private-key" in codes(await b.survey()):
            break
        await asyncio.sleep(0.1)
    else:
        raise AssertionError(await b.survey())
