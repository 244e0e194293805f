from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from komodo.compose.interpolation import names, resolve
from komodo.compose.reference import for_target, is_newer, komodo_kind, looks_like_komodo, mentions, parse, version_of
from tests.komodo import edit_oracle as oracle

D = "sha256:" + "0" * 64


@pytest.mark.parametrize(
    ("ref", "registry", "repository", "tag", "digest"),
    [
        ("ghcr.io/moghtech/komodo-core:2.3.2", "ghcr.io", "moghtech/komodo-core", "2.3.2", ""),
        (f"localhost:5000/a/b@{D}", "localhost:5000", "a/b", "", D),
        (f"a/b:1@{D}", "", "a/b", "1", D),
        ("mongo", "", "mongo", "", ""),
        ("${R:-ghcr.io:443}/a/b:${T:-x:y}", "${R:-ghcr.io:443}", "a/b", "${T:-x:y}", ""),
        ("a/b:${T:-1@2}@${D}", "", "a/b", "${T:-1@2}", "${D}"),
    ],
)
def test_references_are_split_outside_of_variables(
    ref: str, registry: str, repository: str, tag: str, digest: str
) -> None:
    image = parse(ref)
    assert (image.registry, image.repository, image.tag, image.digest) == (registry, repository, tag, digest)


def test_kinds() -> None:
    assert komodo_kind("ghcr.io/moghtech/komodo-core:1") == "core"
    assert komodo_kind("ghcr.io/mbecker20/komodo") == "core"
    assert komodo_kind(f"x.lan/ghcr.io/mbecker20/periphery@{D}") == "periphery"
    assert komodo_kind("${R}/moghtech/komodo-periphery:${T}") == "periphery"
    for other in ("mongo", "ghcr.io/moghtech/komodo-cli:2", "ghcr.io/someone/komodo-core", "notmoghtech/komodo-core"):
        assert komodo_kind(other) is None, other
    assert looks_like_komodo("ghcr.io/someone/komodo-core:1")
    assert not looks_like_komodo("ghcr.io/moghtech/komodo-core:1")


def test_target_references() -> None:
    assert for_target("ghcr.io/mbecker20/periphery:latest", "2.3.2") == "ghcr.io/moghtech/komodo-periphery:2.3.2"
    assert for_target(f"r.lan/moghtech/komodo-core:1@{D}", "2.3.2") == "r.lan/moghtech/komodo-core:2.3.2"


@pytest.mark.parametrize(
    ("tag", "version"),
    [("latest", ()), ("2", (2,)), ("2.3", (2, 3)), ("v1.19.5", (1, 19, 5)), ("2.0.0-dev-98", (2, 0, 0)), ("dev", ()),
     ("", ()), ("latest-aarch64", ()), ("1.15.0-aarch64", (1, 15, 0)), ("sha-12ab", ())],
)  # fmt: skip
def test_versions(tag: str, version: tuple[int, ...]) -> None:
    assert version_of(tag) == version


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("image: ghcr.io/moghtech/komodo-core:latest", ["ghcr.io/moghtech/komodo-core:latest"]),
        ("Image=ghcr.io/moghtech/komodo-periphery", ["ghcr.io/moghtech/komodo-periphery"]),
        ("repository: moghtech/komodo-core", ["moghtech/komodo-core"]),
        ("docker run -d r.lan:5000/moghtech/komodo-core:1", ["r.lan:5000/moghtech/komodo-core:1"]),
        ("FROM ghcr.io/mbecker20/periphery:latest", ["ghcr.io/mbecker20/periphery:latest"]),
        ("x: ghcr.io/moghtech/komodo@sha256:ab", ["ghcr.io/moghtech/komodo@sha256:ab"]),
        ("# see https://github.com/moghtech/komodo/issues/1 or raw.githubusercontent.com/moghtech/komodo/main", []),
        ("image: ghcr.io/moghtech/komodo-cli:2", []),
    ],
)
def test_lines_that_name_komodos_images(line: str, found: list[str]) -> None:
    assert mentions(f"a: b\n{line}\n") == [(2, ref) for ref in found]


def test_newer() -> None:
    assert is_newer("2.4", "2.3.2")
    assert is_newer("3", "2.3.2")
    assert is_newer("2.3.3", "2.3.2")
    assert not any(is_newer(t, "2.3.2") for t in ("2", "2.3", "2.3.2", "latest", "1.19.5", "2.2"))


PLAIN = st.text(alphabet="ab:/.-@ ", max_size=5)
VALUE = st.recursive(
    PLAIN,
    lambda inner: st.one_of(
        st.builds("{}${{{}}}{}".format, PLAIN, st.sampled_from(["A", "B"]), inner),
        st.builds(
            "{}${{{}{}{}}}".format,
            PLAIN,
            st.sampled_from(["A", "B", "C"]),
            st.sampled_from([":-", "-", ":+", "+"]),
            inner,
        ),
        st.builds("$A{}".format, st.sampled_from(["/x", "", ":y"])),
    ),
    max_leaves=4,
)


@given(VALUE, st.dictionaries(st.sampled_from(["A", "B"]), st.sampled_from(["", "1", "x/y:2"])))
def test_variables_mean_what_compose_makes_of_them(text: str, env: dict[str, str]) -> None:
    assert resolve(text, env) == oracle.interpolate(text, env)
    assert resolve(text, dict.fromkeys(names(text), "1") | env) == oracle.interpolate(
        text, dict.fromkeys(names(text), "1") | env
    )
