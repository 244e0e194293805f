"""The README and the documentation are true: commands run, names, links and anchors exist, the capture is real."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shlex
import shutil
import sys
from pathlib import Path

import click
import pytest

from cli.app import cli
from sandbox.fleet import Sandbox

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
DOCS = sorted((ROOT / "docs").glob("*.md"))
PROSE = ("has", "into", "is", "runs", "upgrades")
"""Words that follow the name of the program in a sentence."""
PAGES = [*(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "deploy/README.md")), *DOCS]


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, re.S)


def commands(block: str) -> list[str]:
    return [line.split("#")[0].strip() for line in block.splitlines() if line.split("#")[0].strip()]


def test_the_repository_layout_names_what_exists() -> None:
    rows = re.findall(r"^\| (`[\w./]+/?`(?:, `[\w./]+`)*) \| (.*) \|$", README.split("## Repository layout")[1], re.M)
    assert len(rows) >= 10
    for paths, content in rows:
        for path in re.findall(r"`(.*?)`", paths):
            assert (ROOT / path).exists(), path
        for name in re.findall(r"`([\w*./]+\.(?:py|sh)|[\w]+/)`", content):
            assert (ROOT / re.findall(r"`(.*?)`", paths)[0] / name).exists(), f"{paths}: {name}"


def test_every_package_is_in_the_repository_layout() -> None:
    packages = {path.parent.name for path in ROOT.glob("*/__init__.py")}
    assert {name for name in packages if f"| `{name}/` |" not in README} == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#]*)(?:#([^)]+))?\)", page.read_text()):
        file = page.parent / target if target else page
        assert file.exists(), target
        assert not anchor or anchor in anchors(file), f"{target}#{anchor}"


def anchors(page: Path) -> list[str]:
    """The anchors that GitHub makes of a page's headings."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.M)
    return [re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings]


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_files_that_a_page_names_exist(page: Path) -> None:
    """Paths that begin with a folder of this repository, and bare names of tests in the page's tables."""
    text = page.read_text()
    folders = "|".join(p.name for p in ROOT.iterdir() if p.is_dir() and p.name[0] != "." and p.name != "build")
    for name in re.findall(rf"`((?:{folders})/[\w./-]*)`", text):
        assert (ROOT / name).exists(), name
    for name in re.findall(r"`(test_\w+\.py)`", text):
        assert list((ROOT / "tests").rglob(name)), name


def test_every_page_is_linked_from_the_readme() -> None:
    assert [page.name for page in DOCS if f"(docs/{page.name})" not in README] == []


def test_the_two_commands_are_in_the_makefile_and_ci_runs_them() -> None:
    makefile, ci = (ROOT / "Makefile").read_text(), (ROOT / ".ci" / "run").read_text()
    for line in commands(blocks(README, "sh")[0]):
        target = line.removeprefix("make ")
        assert re.search(rf"^{target}:", makefile, re.M), line
        assert line in ci, line


def test_make_targets_in_the_docs_exist() -> None:
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.M)
    for page in PAGES:
        for target in re.findall(r"(?:`|^ *)make ([a-z][\w-]*)", page.read_text(), re.M):
            assert target in targets, f"{page.name}: make {target}"


async def test_the_five_steps_upgrade_a_fleet(tmp_path: Path) -> None:
    """As printed, but for the fleet file (the simulated fleet's) and the answers (there is no terminal here).

    The README's capture is of the same session: every line of it has to be printed here.
    """
    init, check, plan, start, report = commands(blocks(README, "sh")[1])
    async with await Sandbox.start(tmp_path / "fleet", servers=2, speed=10) as sandbox:
        env = {**os.environ, "KOMODO_UPGRADE_STATE": str(tmp_path / "state"), "HOME": str(tmp_path), "NO_COLOR": "1"}
        env = {k: v for k, v in env.items() if not k.startswith("TEMPORAL_")}
        shown: list[str] = []

        async def run(line: str, code: int = 0) -> str:
            ended, output = await typed(line, tmp_path, env)
            assert ended == code, output
            shown.extend(output.splitlines())
            return output

        try:
            await run(init)
            assert "[fleet]" in (tmp_path / "fleet.toml").read_text()
            for name in ("fleet.toml", "known_hosts", "id_ed25519", "secrets"):
                source = sandbox.fleet_file.parent / name
                copy = shutil.copytree if source.is_dir() else shutil.copy
                await asyncio.to_thread(copy, source, tmp_path / name)
            await run(check)
            await run(plan, 5)
            assert "komodo-upgrade approve" in await run(start, 6)
            await run("komodo-upgrade approve fleet.toml --gate core --confirm sandbox")
            await opened("wave/2", tmp_path, env)
            await run("komodo-upgrade status fleet.toml", 6)
            await run("komodo-upgrade approve fleet.toml --gate wave/2")
            await run("komodo-upgrade watch fleet.toml")
            ended = await run(f"{report} -o json")
            assert json.loads(ended)["result"]["state"] == "upgraded", ended[:300]
            assert {s.name: sandbox.agent_version(s.name) for s in sandbox.hosts.values() if s.name != "core"} == {
                "web-1": "2.3.2",
                "db-1": "2.3.2",
            }
        finally:
            await typed("komodo-upgrade down --force", tmp_path, env)
    printed = [in_general(line) for line in shown]
    captured = [line for line in blocks(README, "text")[0].splitlines() if line and not line.startswith("$ ")]
    missing = [line for line in captured if not any(one.startswith(in_general(line)) for one in printed)]
    assert not missing, "lines of the README's capture that nothing prints:\n" + "\n".join(missing)


def in_general(line: str) -> str:
    """A line without what differs between two runs. One that ends with an ellipsis stands for its beginning."""
    line = re.sub(r"plan [0-9a-f]{16}", "plan #", line.removesuffix("…").replace("prod", "sandbox"))
    return re.sub(r"\d+", "#", re.sub(r"/\S*?(?=/(?:var|opt|etc)/)", "", line)).rstrip()


async def opened(gate: str, folder: Path, env: dict[str, str]) -> None:
    """Wait until this gate is open."""
    end = asyncio.get_running_loop().time() + 120
    while f"gate {gate}" not in (shown := (await typed("komodo-upgrade status fleet.toml", folder, env))[1]):
        assert asyncio.get_running_loop().time() < end, shown
        await asyncio.sleep(0.5)  # each call is a process that needs most of a second of a processor


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
    output = out.decode() + (err.decode() if "-o json" not in line else "")
    return process.returncode or 0, output


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_commands_and_options_in_the_docs_exist(page: Path) -> None:
    for line in re.findall(r"komodo-upgrade ([a-z]+\b[^\n`#|]*)", page.read_text()):
        name, *words = line.replace(":", " ").split()
        command = cli.get_command(click.Context(cli), name)
        if name in PROSE and not command:
            continue
        if isinstance(command, click.Group) and words:
            command = command.get_command(click.Context(command), words[0])
        assert command, f"komodo-upgrade {name}"
        known = [option for parameter in command.params for option in parameter.opts]
        unknown = [w for w in words if w.startswith("--") and w.split("=")[0] not in (*known, "--help")]
        assert not unknown, f"komodo-upgrade {line}"
