"""Attack: a compose or env file on a host that takes the worker's memory or time when it is read."""

from __future__ import annotations

import time

import pytest

from komodo.compose.interpolation import resolve
from komodo.compose.yaml_nodes import load
from komodo.files.env import values
from model.errors import EditRefused

CORE = "services:\n  core:\n    image: ghcr.io/moghtech/komodo-core:1.19.5\n"
LIMIT = 5.0
"""Seconds; on a quiet machine each case takes less than one."""


def _laughs(levels: int) -> str:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    for i in range(1, levels):
        lines.append(f"a{i}: &a{i} [" + ", ".join([f"*a{i - 1}"] * 9) + "]")
    return "\n".join(lines) + "\n"


def _merges(levels: int) -> str:
    lines = "".join(f"x{i}: &x{i}\n  <<: [*x{i - 1}, *x{i - 1}]\n  k{i}: 1\n" for i in range(1, levels))
    return f"x0: &x0 {{a: 1}}\n{lines}{CORE}    <<: *x{levels - 1}\n"


FILES = {
    "aliases that multiply": _laughs(9) + CORE + "    x: *a8\n",
    "merged mappings that multiply": _merges(30),
    "5,000 open brackets": CORE + "    x: " + "[" * 5000 + "]" * 5000 + "\n",
    "5,000 dashes": CORE + "    x:\n      " + "- " * 5000 + "x\n",
    "5,000 nested mappings": CORE + "    x: " + "{a: " * 5000 + "1" + "}" * 5000 + "\n",
    "100,000 keys": CORE + "    environment:\n" + "".join(f"      K{i}: v\n" for i in range(100_000)),
}


@pytest.mark.parametrize("text", FILES.values(), ids=FILES)
def test_a_compose_file_is_refused_quickly(text: str) -> None:
    begun = time.monotonic()
    with pytest.raises(EditRefused):
        load(text, snippet="")
    assert time.monotonic() - begun < LIMIT


def test_ordinary_anchors_are_read() -> None:
    load(f"x-env: &env {{TZ: Etc/UTC}}\n{CORE}    environment: {{<<: *env}}\n", snippet="")


def test_variables_that_double_are_refused() -> None:
    doubling = "A0=xxxxxxxxxx\n" + "".join(f"A{i}=${{A{i - 1}}}${{A{i - 1}}}\n" for i in range(1, 60))
    with pytest.raises(EditRefused, match="longer than"):
        values(doubling)


def test_defaults_that_nest_are_refused() -> None:
    with pytest.raises(EditRefused, match="nested too deeply"):
        resolve("${A:-" * 3000 + "}" * 3000, {})


def test_a_long_env_file_takes_no_longer_than_its_length() -> None:
    """1 MiB took 25 s: every line was counted from the beginning. More than 256 KiB are not even read from a host."""
    lines = [f'KEY_{number}="a \\\\"value\\\\" of {{}} {number}"\n' for number in range(10_000)]
    begun = time.process_time()
    assert len(values("".join(lines))) == len(lines)
    assert time.process_time() - begun < LIMIT
