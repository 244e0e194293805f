"""The README is true: its map names files that exist, its commands are run here as they stand."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shlex
import shutil
import sys
from pathlib import Path

import pytest

from sandbox.fleet import Sandbox

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
DOCS = sorted((ROOT / "docs").glob("*.md"))


def blocks(text: str) -> list[str]:
    return re.findall(r"```sh\n(.*?)```", text, re.S)


def commands(block: str) -> list[str]:
    return [line.split("#")[0].strip() for line in block.splitlines() if line.split("#")[0].strip()]


def test_the_map_names_what_exists() -> None:
    rows = re.findall(r"^\| `([\w./`, ]+)` \| (.*) \|$", README, re.M)
    assert len(rows) >= 9
    for rooms, told in rows:
        for room in rooms.split("`, `"):
            assert (ROOT / room).exists(), room
        for name in re.findall(r"`([\w*./]+\.(?:py|sh)|[\w]+/)`", told):
            assert list((ROOT / rooms.split("`")[0]).glob(name)), f"{rooms}{name}"


def test_links_lead_somewhere() -> None:
    for file in (ROOT / "README.md", *DOCS, ROOT / "deploy" / "README.md"):
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", file.read_text()):
            assert (file.parent / target).exists(), f"{file.name}: {target}"


def test_the_two_commands_are_in_the_makefile_and_ci_runs_them() -> None:
    makefile, ci = (ROOT / "Makefile").read_text(), (ROOT / ".ci" / "run").read_text()
    for line in commands(blocks(README)[0]):
        target = line.removeprefix("make ")
        assert re.search(rf"^{target}:", makefile, re.M), line
        assert line in ci, line


async def test_the_five_steps_upgrade_a_fleet(tmp_path: Path) -> None:
    """As printed, but for the fleet file (the simulated fleet's) and the answers (there is no terminal here)."""
    steps = commands(blocks(README)[1])
    assert [shlex.split(s)[1] for s in steps] == ["init", "check", "plan", "start", "report"]
    async with await Sandbox.start(tmp_path / "fleet", servers=2, speed=10) as sandbox:
        env = {**os.environ, "KOMODO_UPGRADE_STATE": str(tmp_path / "state"), "HOME": str(tmp_path), "NO_COLOR": "1"}
        env = {k: v for k, v in env.items() if not k.startswith("TEMPORAL_")}
        try:
            assert (await typed(steps[0], tmp_path, env))[0] == 0
            assert "[fleet]" in (tmp_path / "fleet.toml").read_text()
            for name in ("fleet.toml", "known_hosts", "id_ed25519", "secrets"):
                source = sandbox.fleet_file.parent / name
                copy = shutil.copytree if source.is_dir() else shutil.copy
                await asyncio.to_thread(copy, source, tmp_path / name)
            code, said = await typed(steps[1], tmp_path, env)
            assert code == 0, said
            code, said = await typed(steps[2], tmp_path, env)
            assert code == 5, said
            code, said = await typed(steps[3], tmp_path, env)
            assert code == 6, said
            assert "komodo-upgrade approve" in said
            for gate in ("core", "wave/2"):
                await approve(gate, tmp_path, env)
            code, said = await typed("komodo-upgrade watch fleet.toml", tmp_path, env)
            assert code == 0, said
            code, said = await typed(f"{steps[4]} -o json", tmp_path, env)
            assert code == 0, said
            assert json.loads(said)["result"]["state"] == "upgraded", said[:300]
            assert {s.name: sandbox.agent_version(s.name) for s in sandbox.hosts.values() if s.name != "core"} == {
                "web-1": "2.3.2",
                "db-1": "2.3.2",
            }
        finally:
            await typed("komodo-upgrade down --force", tmp_path, env)


async def approve(gate: str, folder: Path, env: dict[str, str]) -> None:
    """Approve this gate, as soon as it is open."""
    end = asyncio.get_running_loop().time() + 120
    while True:
        code, said = await typed(f"komodo-upgrade approve fleet.toml --gate {gate} --confirm sandbox", folder, env)
        if code == 0:
            return
        assert asyncio.get_running_loop().time() < end, said
        await asyncio.sleep(0.5)  # each try is a process that needs most of a second of a processor


async def typed(line: str, folder: Path, env: dict[str, str]) -> tuple[int, str]:
    """Run a command line of ours, without a terminal."""
    program, *arguments = shlex.split(line)
    assert program == "komodo-upgrade"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "starter", *arguments,
        cwd=folder, env={**env, "PYTHONPATH": str(ROOT)},
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, err = await asyncio.wait_for(process.communicate(), 150)
    told = out.decode() + (err.decode() if "-o json" not in line else "")
    return process.returncode or 0, told


@pytest.mark.parametrize("file", [ROOT / "README.md", *DOCS], ids=lambda p: p.name)
def test_commands_in_the_docs_exist(file: Path) -> None:
    from cli.app import cli

    for name in re.findall(r"komodo-upgrade ([a-z]+)\b", file.read_text()):
        if name in {"has", "is"}:
            continue
        import click

        assert cli.get_command(click.Context(cli), name), f"{file.name}: komodo-upgrade {name}"
