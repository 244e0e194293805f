"""`order` and `labels`: which servers come first, and what the canary is."""

from __future__ import annotations

from pathlib import Path

import pytest

from model.errors import FleetFileError
from model.fleet.file import parse
from model.plan import waves

LABELS = {"web-1": "", "edge-1": "edge", "db-1": "db", "web-2": "", "edge-2": "edge", "db-2": "db"}


def order(rollout: str, first: str = "") -> list[str]:
    names = sorted(LABELS, key=lambda n: n != first)
    text = f'[fleet]\nname = "p"\ntarget = "2.3.2"\n[core]\nhost = "c"\n[rollout]\n{rollout}\n'
    for name in names:
        labels = f'labels = ["{LABELS[name]}", "x"]' if LABELS[name] else ""
        text += f'[[server]]\nname = "{name}"\nhost = "{name}"\n{labels}\n'
    fleet = parse(text, Path("/srv/fleet.toml"))
    return [" ".join(w.servers) for w in waves(fleet, tuple(names))]


EDGE_FIRST = 'order = ["label:edge", "*", "label:db"]\n'


@pytest.mark.parametrize(
    ("rollout", "expected"),
    [
        ("wave = 2", ["web-1", "edge-1 db-1", "web-2 edge-2", "db-2"]),
        # The canary is the first server of the file, and stays first.
        (EDGE_FIRST + "wave = 9", ["web-1", "edge-1 edge-2", "web-2", "db-1 db-2"]),
        (EDGE_FIRST + "wave = 1", ["web-1", "edge-1", "edge-2", "web-2", "db-1", "db-2"]),
        (EDGE_FIRST + "wave = 9\ncanary = 0", ["edge-1 edge-2", "web-1 web-2", "db-1 db-2"]),
        # Of two, edge-1 is named by an entry, where it comes first anyway.
        (EDGE_FIRST + "wave = 9\ncanary = 2", ["web-1 edge-1", "edge-2", "web-2", "db-1 db-2"]),
        (EDGE_FIRST + 'approve = "each-server"', ["web-1", "edge-1", "edge-2", "web-2", "db-1", "db-2"]),
        ('order = ["label:db", "web-2"]\nwave = 9', ["web-1", "db-1 db-2", "web-2", "edge-1 edge-2"]),
        ('order = ["db-2", "label:db", "*"]\nwave = 9', ["web-1", "db-2", "db-1", "edge-1 web-2 edge-2"]),
        ('order = ["*"]\nwave = "50%"', ["web-1", "edge-1 db-1 web-2", "edge-2 db-2"]),
    ],
)
def test_groups_come_one_after_the_other(rollout: str, expected: list[str]) -> None:
    assert order(rollout) == expected


def test_a_canary_that_an_entry_names_goes_where_it_says() -> None:
    assert order(EDGE_FIRST + "wave = 9", first="db-1") == ["edge-1", "edge-2", "web-1 web-2", "db-1 db-2"]
    assert order('order = ["db-1"]\nwave = 9', first="db-1")[0] == "db-1"


@pytest.mark.parametrize(
    ("rollout", "why"),
    [
        ('order = ["label:edgy"]', 'names "label:edgy", but no .* has this label'),
        ('order = ["web-9"]', 'names "web-9", but no .* has this name'),
        ('order = ["edge"]', 'names "edge"'),
        ('order = ["*", "web-1", "*"]', "twice"),
        ('order = ["*"]\nmode = "all-at-once"', "has no effect with all-at-once"),
        ('order = "label:edge"', "must be a list"),
        ('window = "Sat 22:00-05:00"', "time zone"),
        ("window = 5", "no maintenance window"),
        ('window = ["Sat 22:00-05:00 UTC", "x"]', "no maintenance window"),
    ],
)
def test_what_is_no_order_or_window_is_refused(rollout: str, why: str) -> None:
    with pytest.raises(FleetFileError, match=why):
        order(rollout)


def test_a_label_is_one_word() -> None:
    text = '[fleet]\nname = "p"\ntarget = "2.3.2"\n[core]\nhost = "c"\n[[server]]\nname = "a"\nhost = "a"\nlabels = '
    assert parse(text + '["db"]\n', Path("/f.toml")).servers[0].labels == ("db",)
    with pytest.raises(FleetFileError, match="cannot be a label"):
        parse(text + '["a b"]\n', Path("/f.toml"))
