from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from komodo.files.env import TAG_VARIABLE, edit_env, entries, values
from model.errors import EditRefused

T = TAG_VARIABLE


def edit(text: str, *variables: str, **options: bool) -> str:
    return edit_env(text, target="2.3.2", tag_variables=variables or (T,), **options).text


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (f"{T}=latest\n", f"{T}=2.3.2\n"),
        (f"{T}=latest", f"{T}=2.3.2"),
        (f"{T}=latest\r\nA=b\r\n", f"{T}=2.3.2\r\nA=b\r\n"),
        (f"\ufeff{T}=latest\n", f"\ufeff{T}=2.3.2\n"),
        (f'{T}="latest"\n', f'{T}="2.3.2"\n'),
        (f"{T}='1.19.5' # stay\n", f"{T}='2.3.2' # stay\n"),
        (f"{T}=latest # stay on it\n", f"{T}=2.3.2 # stay on it\n"),
        (f"{T}=latest#tight\n", f"{T}=2.3.2\n"),
        (f"{T}=latest\t# tab\n", f"{T}=2.3.2\t# tab\n"),
        (f"export {T}=latest\n", f"export {T}=2.3.2\n"),
        (f"  {T} = latest\n", f"  {T} = 2.3.2\n"),
        (f"{T}: latest\n", f"{T}: 2.3.2\n"),
        (f"{T}:latest\n", f"{T}:2.3.2\n"),
        (f"{T}=\n", f"{T}=2.3.2\n"),
        (f"{T}= # none\n", f"{T}=2.3.2 # none\n"),
        (f"{T}=2\n", f"{T}=2.3.2\n"),
        (f"{T}=1.19.5@sha256:ab\n", f"{T}=2.3.2\n"),
        (f"{T}=2.3.2@sha256:ab\n", f"{T}=2.3.2@sha256:ab\n"),
        (f"{T}=${{OTHER}}\nOTHER=1\n", f"{T}=2.3.2\nOTHER=1\n"),
        (f"{T}=1.18.0\n{T}=1.19.5\n", f"{T}=1.18.0\n{T}=2.3.2\n"),
        (f"# {T}=latest\n", f"# {T}=latest\n"),
        ("", ""),
        ("KEY='two\nlines'\n", "KEY='two\nlines'\n"),
        (f'KEY="two\n{T}=1"\n{T}=1\n', f'KEY="two\n{T}=1"\n{T}=2.3.2\n'),
        ("KOMODO_FIRST_SERVER=https://p:8120\n", "# KOMODO_FIRST_SERVER=https://p:8120\n"),
        ("export KOMODO_FIRST_SERVER='x' # c\r\n", "# export KOMODO_FIRST_SERVER='x' # c\r\n"),
        ("  KOMODO_FIRST_SERVER_ADDRESS=x", "  # KOMODO_FIRST_SERVER_ADDRESS=x"),
        ("KOMODO_FIRST_SERVER_NAME=Local\n", "# KOMODO_FIRST_SERVER_NAME=Local\n"),
        ("#KOMODO_FIRST_SERVER=x\n", "#KOMODO_FIRST_SERVER=x\n"),
        (f"{T}=2.0.0\nKOMODO_FIRST_SERVER_NAME=L\n", f"{T}=2.3.2\nKOMODO_FIRST_SERVER_NAME=L\n"),
        ("PASS=op://vault/x\nKOMODO_FIRST_SERVER=x\n", "PASS=op://vault/x\n# KOMODO_FIRST_SERVER=x\n"),
    ],
)
def test_only_what_has_to_change_changes(before: str, after: str) -> None:
    assert edit(before) == after
    assert edit(after) == after


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (f"{T}=2.4.0\n", "step back"),
        (f"{T}=op://vault/komodo/tag\n", "another tool"),
        (f"{T}={{{{ komodo_version }}}}\n", "another tool"),
        (f"{T}=mongo/mongo:7\n", "neither a version"),
        (f"{T}=ENC[AES256_GCM,data:x]\nsops_mac=ENC[AES256_GCM,data:y]\n", "sops"),
        (f"{T}=latest\nsops_version=3.9\nsops_mac=ENC[x]\n", "sops"),
        (f"{T}=latest\nSECRET=ENC[AES256_GCM,data:y,iv:z]\n", "sops"),
        ("$ANSIBLE_VAULT;1.1;AES256\n3132\n", "ansible-vault"),
        (f"{{% if x %}}\n{T}=latest\n{{% endif %}}\n", "template"),
        (f"A='never closed\n{T}=latest\n", "never closed"),
        (f"{T}=latest\rA=b\r", "carriage return"),
    ],
)
def test_refusals_say_why_and_what_to_paste(text: str, why: str) -> None:
    with pytest.raises(EditRefused) as refused:
        edit(text)
    assert why in str(refused.value)
    assert "2.3.2" in refused.value.snippet or "never closed" in why


def test_a_variable_may_hold_the_whole_image() -> None:
    text = "IMAGE=ghcr.io/mbecker20/komodo:1.16.12 # old\n"
    assert edit(text, "IMAGE") == "IMAGE=ghcr.io/moghtech/komodo-core:2.3.2 # old\n"


def test_the_last_of_duplicates_is_edited() -> None:
    edited = edit_env(f"{T}=1\nA=b\n{T}=latest\n", target="2.3.2", tag_variables=(T,))
    assert "line 3, which takes precedence over line 1" in edited.reasons[0]


def test_a_first_server_that_others_use_stays() -> None:
    text = "KOMODO_FIRST_SERVER_NAME=Local\nPERIPHERY_CONNECT_AS=${KOMODO_FIRST_SERVER_NAME}\n"
    edited = edit_env(text, target="2.3.2", tag_variables=(T,))
    assert edited.text == text
    assert "PERIPHERY_CONNECT_AS" in edited.notes[0]


def test_the_caller_may_know_the_running_version() -> None:
    text = "KOMODO_FIRST_SERVER=x\n"
    assert edit(text, from_v1=False) == text
    assert edit(f"{T}=2\n{text}", from_v1=True) == f"{T}=2.3.2\n# {text}"


def test_values_are_what_compose_reads() -> None:
    text = 'A=1\nB="$A-${A}"\nC=\'$A\'\nD=${A:-x} # c\nE=\nexport F=f\nG=a#b\nA=2\nH="two\nlines"\nnothing\n'
    assert values(text) == {
        "A": "2", "B": "1-1", "C": "$A", "D": "1", "E": "", "F": "f", "G": "a#b", "H": "two\nlines",
    }  # fmt: skip


VALUES = st.sampled_from(["latest", "'1.19.5'", '"2"', "", "b c # d", "$A", "x=y", "\u00e9\u2028z", "#", '"a\\"b"'])
OTHERS = st.one_of(VALUES, st.just("'two\nlines'"))
FIRST = st.sampled_from(["KOMODO_FIRST_SERVER", "KOMODO_FIRST_SERVER_NAME"])
HEADS = st.sampled_from(["", "export ", "  ", "\t"])
LINES = st.one_of(
    st.builds("{}{}={}".format, HEADS, st.just(T), VALUES.filter(lambda v: v != "#")),
    st.builds("{}{}={}".format, HEADS, FIRST, VALUES),
    st.builds("{}{}={}".format, HEADS, st.sampled_from(["A", "KOMODO_PASSKEY"]), OTHERS),
    st.sampled_from(["", "# comment", "## KEY=value", "   ", "not an assignment", "\t# tab"]),
)


@given(st.lists(LINES, max_size=12), st.sampled_from(["\n", "\r\n"]), st.booleans(), st.booleans(), st.booleans())
def test_every_other_byte_is_the_same(lines: list[str], newline: str, last: bool, bom: bool, from_v1: bool) -> None:
    text = ("\ufeff" if bom else "") + newline.join(lines) + (newline if last else "")
    edited = edit(text, from_v1=from_v1)
    assert edit(edited, from_v1=from_v1) == edited
    if T in values(text):
        assert values(edited)[T] == "2.3.2"
    before, after = entries(text), entries(edited)
    gone = [e for e in before if from_v1 and e.name.startswith("KOMODO_FIRST_SERVER")]
    assert [(e.name, e.raw) for e in after if e.name != T] == [
        (e.name, e.raw) for e in before if e.name != T and e not in gone
    ]
    expected = text
    for entry in sorted(before, key=lambda e: -e.start):
        if entry in gone:
            expected = expected[: entry.start] + "# " + expected[entry.start :]
        elif entry in [e for e in before if e.name == T][-1:]:
            expected = expected[: entry.value_start] + "2.3.2" + expected[entry.value_end :]
    assert edited == expected


@pytest.mark.official("env")
def test_every_official_env_file(official_file: Path) -> None:
    text = official_file.read_bytes().decode()
    edited = edit(text)
    old, new = values(text), values(edited)
    if T in old:
        assert new[T] == "2.3.2"
    gone = {n for n in old if n.startswith("KOMODO_FIRST_SERVER")} if "/v1" in str(official_file) else set()
    assert {k: v for k, v in new.items() if k != T} == {k: v for k, v in old.items() if k not in {T, *gone}}
    assert edit(edited) == edited
    a, b = text.splitlines(), edited.splitlines()
    assert len(a) == len(b)
    assert sum(x != y for x, y in zip(a, b, strict=True)) == len(gone) + (T in old)
