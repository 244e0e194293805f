"""`plan --patch`: git applies the patches and gets what the plan says; they hold no secret."""

from __future__ import annotations

import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from cli.patches import describe, patches, write
from komodo.files.diff import hunks
from komodo.files.edit_set import FileEdit, digest, edit_project
from komodo.public_key import PLACEHOLDER
from model.errors import UpgradeError
from model.facts import PlannedEdit
from model.plan import Plan
from model.planning import make_plan
from tests.komodo.test_plan_apply import HERE, TARGET, Basis, official, project, shapes, varied
from tests.workflows.doubles import core_facts, fleet, server_facts


def plan_of(*core: PlannedEdit, web: tuple[PlannedEdit, ...] = ()) -> Plan:
    facts = {"web-1": replace(server_facts("web-1"), edits=web)}
    return make_plan(fleet(1), "c", replace(core_facts(), edits=core), facts)


def edited(before: str, after: str, path: str = f"{HERE}/compose.yaml", kind: str = "compose") -> PlannedEdit:
    return FileEdit(path=path, kind=kind, before=before, after=after).planned(repositories=(HERE,))


def apply(patch: Path, repository: Path, files: dict[str, str]) -> dict[str, str]:
    """What git makes of these files."""
    for path, text in files.items():
        target = repository / Path(path).relative_to(HERE)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(text.encode())
    environment = {**os.environ, "GIT_CEILING_DIRECTORIES": str(repository.parent)}
    subprocess.run(["git", "apply", "--unidiff-zero", patch], cwd=repository, env=environment, check=True)
    return {path: (repository / Path(path).relative_to(HERE)).read_bytes().decode() for path in files}


def cases(config: pytest.Config) -> list[Basis]:
    bases = [basis for basis in [*shapes(), *official(config)] if basis.compose]
    return [varied(seed, basis) for basis in bases for seed in (0, 1, 2)]


def test_git_makes_the_planned_files_of_the_patches(tmp_path: Path, pytestconfig: pytest.Config) -> None:
    made = 0
    for number, case in enumerate(cases(pytestconfig)):
        files = project(case.compose, case.env)
        edit = edit_project(files, target=TARGET, key=PLACEHOLDER, copies_keys=True)
        planned = edit.planned((HERE,)) if not any(file.refused for file in edit.files) else ()
        here = tmp_path / str(number)
        for path, patch in write(here / "patches", plan_of(*planned)):
            if not patch.edits:
                continue
            assert "s3cret" not in path.read_text()
            done = apply(path, here / "work", {**files.compose, **files.envs})
            for one in patch.edits:
                assert digest(done[one.path]) == one.result_sha256, case
                made += 1
    assert made > 5


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("a: 1\n", "image: x\na: 1\n"),
        ("image: x", "image: y"),
        ("image: x\n", "image: x\ninit: true"),
        ("image: x\r\nname: a\r\n", "image: y\r\nname: a\r\n"),
        ("\ufeff# c\nimage: x\nname: a\n", "\ufeff# c\nimage: y\nname: a\n"),
        ("image: x\npassword: s3cret\n" * 3, "image: y\npassword: s3cret\n" * 3),
        ("token: s3cret\nimage: x\ntoken: s3cret\n", "token: s3cret\nimage: x\ninit: true\ntoken: s3cret\n"),
        ("", "image: x\n"),
        ("image: a\x0bb\nname: a\n", "image: a\x0bb\nname: b\n"),
    ],
)
def test_odd_files(tmp_path: Path, before: str, after: str) -> None:
    found = edited(before, after)
    assert found.hunks
    assert "s3cret" not in "".join(found.hunks)
    [[path, _]] = write(tmp_path / "patches", plan_of(found))
    assert apply(path, tmp_path / "work", {found.path: before}) == {found.path: after}


def test_a_changed_line_that_could_hold_a_secret_is_in_no_patch(tmp_path: Path) -> None:
    secret = edited("password: s3cret\n", "password: s3cret2\n")
    keyed = replace(edited("image: x\n", f"image: x\ninit: {PLACEHOLDER}\n"), with_key=True)
    assert (secret.hunks, keyed.hunks) == ((), ())
    written = write(tmp_path, plan_of(secret, keyed))
    assert list(tmp_path.iterdir()) == []
    assert list(describe(written)) == [
        f"not in a patch: {HERE}/compose.yaml on core: a line that changes could hold a secret",
        f"not in a patch: {HERE}/compose.yaml on core: it gets Core's key, which is known after the upgrade",
    ]


def test_context_of_env_files_shows_no_value() -> None:
    before = "A=s3cret\nCOMPOSE_KOMODO_IMAGE_TAG=latest\nB=s3cret\n"
    [hunk] = hunks(before, before.replace("latest", TARGET), "env") or ()
    assert hunk == f"@@ -2,1 +2,1 @@\n-COMPOSE_KOMODO_IMAGE_TAG=latest\n+COMPOSE_KOMODO_IMAGE_TAG={TARGET}\n"


def test_each_repository_of_each_host_has_a_file(tmp_path: Path) -> None:
    def at(path: str) -> PlannedEdit:
        return FileEdit(path=path, kind="compose", before="image: x\n", after="image: y\n").planned(
            repositories=("/a", "/b", "/a/inner")
        )

    plan = plan_of(at("/a/x"), at("/b/x"), at("/a/inner/x"), at("/c/x"), web=(at("/a/x"), at("/a/../b/x")))
    found = [(path.name, p.host, p.repository, [e.path for e in p.edits]) for path, p in write(tmp_path, plan)]
    assert found == [
        ("core.patch", "core", "/a", ["/a/x"]),
        ("core-2.patch", "core", "/b", ["/b/x"]),
        ("core-3.patch", "core", "/a/inner", ["/a/inner/x"]),
        ("web-1.patch", "web-1", "/a", ["/a/x"]),
    ]
    assert (tmp_path / "core-3.patch").read_text().splitlines()[-3:] == ["@@ -1,1 +1,1 @@", "-image: x", "+image: y"]
    assert "plan" in (tmp_path / "web-1.patch").read_text().splitlines()[0]


def test_without_a_repository_there_is_no_patch(tmp_path: Path) -> None:
    plan = plan_of(FileEdit(path="/a/x", kind="compose", before="image: x\n", after="image: y\n").planned())
    assert patches(plan) == ()
    assert "no patch was written" in "".join(describe(write(tmp_path / "new", plan)))
    (tmp_path / "file").write_text("")
    with pytest.raises(UpgradeError, match="File exists"):
        write(tmp_path / "file", plan)
