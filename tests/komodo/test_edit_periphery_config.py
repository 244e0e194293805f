# ruff: noqa: E501 - a table reads best with a case on a line
from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from komodo.files.periphery_toml import edit_periphery_config, inspect
from model.errors import EditRefused, KeyRejected

KEY = "MCowBQYDK2VuAyEATZgrjGHeF0KJUe0+n77+qAWOg3YzEzXOmQWaRgO3OGQ="
OTHER = "MCowBQYDK2VuAyEAaZgrjGHeF0KJUe0+n77+qAWOg3YzEzXOmQWaRgO3OGQ="
ED25519 = "MCowBQYDK2VwAyEATZgrjGHeF0KJUe0+n77+qAWOg3YzEzXOmQWaRgO3OGQ="
LINE = f'core_public_keys = ["{KEY}"]'
PEM = f"-----BEGIN PUBLIC KEY-----\n{KEY}\n-----END PUBLIC KEY-----\n"


def edit(text: str, key: str = KEY) -> str:
    edited = edit_periphery_config(text, key=key)
    assert (edited.text == text) == (edited.reasons == ())
    again = edit_periphery_config(edited.text, key=key)
    assert (again.text, again.reasons) == (edited.text, ())
    return edited.text


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", f"{LINE}\n"),
        ("# only a comment", f"# only a comment\n{LINE}"),
        ("port = 8120\n", f"port = 8120\n{LINE}\n"),
        ('passkeys = ["a"]\nport = 1\n', f'passkeys = ["a"]\n{LINE}\nport = 1\n'),
        ('passkeys = [ # c\n  "a", # [x]\n]\n[secrets]\nA = "b"\n', f'passkeys = [ # c\n  "a", # [x]\n]\n{LINE}\n[secrets]\nA = "b"\n'),
        ('passkeys = ["a"]', f'passkeys = ["a"]\n{LINE}'),
        ('passkeys = ["a"]\r\n\r\n[x]\r\n', f'passkeys = ["a"]\r\n{LINE}\r\n\r\n[x]\r\n'),
        ('\ufeffpasskeys = ["a"]\n', f'\ufeffpasskeys = ["a"]\n{LINE}\n'),
        ("[secrets]\nA = 'b'\n", f"{LINE}\n[secrets]\nA = 'b'\n"),
        ("# top\n\n# about secrets\n[secrets]\n", f"# top\n\n{LINE}\n# about secrets\n[secrets]\n"),
        ("port = 1\n\n[[git_provider]]\ndomain = 'x'\n", f"port = 1\n{LINE}\n\n[[git_provider]]\ndomain = 'x'\n"),
        ("logging.level = 'info'\n", f"logging.level = 'info'\n{LINE}\n"),
        ("[logging]\nlevel = 'x'\npasskeys = ['a']\n", f"{LINE}\n[logging]\nlevel = 'x'\npasskeys = ['a']\n"),
        (f"# core_public_keys = '{OTHER}'\n# passkeys = []\n", f"# core_public_keys = '{OTHER}'\n{LINE}\n# passkeys = []\n"),
        ('a = """\n[not a table]\n"""\n[t]\n', f'a = """\n[not a table]\n"""\n{LINE}\n[t]\n'),
        # what is there already
        (f"{LINE}\n", f"{LINE}\n"),
        (f"core_public_keys = '{KEY}' # c\n", f"core_public_keys = '{KEY}' # c\n"),
        (f'core_public_keys = "{OTHER}, {KEY}"\n', f'core_public_keys = "{OTHER}, {KEY}"\n'),
        (f'core_public_key = ["{KEY}"]\n', f'core_public_key = ["{KEY}"]\n'),
        (f'core_public_keys = ["""{PEM}"""]\n', f'core_public_keys = ["""{PEM}"""]\n'),
        (f'"core_public_keys" = ["{KEY}"]\n', f'"core_public_keys" = ["{KEY}"]\n'),
        # empty forms let anyone in
        ('core_public_keys = "" # c\n', f"{LINE} # c\n"),
        ("core_public_keys = []\n[x]\n", f"{LINE}\n[x]\n"),
        ('core_public_keys = [""]\n', f"{LINE}\n"),
        ("core_public_keys = [\n]\n", f"{LINE}\n"),
        ("core_public_key = ''\r\n", f'core_public_key = ["{KEY}"]\r\n'),
        # other keys stay, ours comes to them
        (f'core_public_keys = ["{OTHER}"] # c\n', f'core_public_keys = ["{KEY}", "{OTHER}"] # c\n'),
        (f'core_public_keys = [\n  "{OTHER}", # c\n]\n', f'core_public_keys = [\n  "{KEY}",\n  "{OTHER}", # c\n]\n'),
        (f'core_public_keys = "{OTHER}"\n', f'core_public_keys = "{OTHER}, {KEY}"\n'),
        ('core_public_keys = "file:/a/core.pub"\n', f'core_public_keys = "file:/a/core.pub, {KEY}"\n'),
        ('core_public_keys = ["file:/a/core.pub"]\n', f'core_public_keys = ["{KEY}", "file:/a/core.pub"]\n'),
        ('core_public_keys = ["${CORE}"]\n', f'core_public_keys = ["{KEY}", "${{CORE}}"]\n'),
        # what v2 does not start with goes
        ('core_public_keys = "<YOUR_CORE_PUBLIC_KEY>"\n', f"{LINE}\n"),
        (f'core_public_keys = ["{ED25519}"]\n', f"{LINE}\n"),
        (f'core_public_keys = ["{OTHER}", "{ED25519}"]\n', f'core_public_keys = ["{OTHER}", "{KEY}"]\n'),
        (f'core_public_keys = ["{KEY}", "x"]\n', f"{LINE}\n"),
        (f'core_public_keys = ["", "{KEY}"]\n', f"{LINE}\n"),
        (f'core_public_keys = [" {KEY} "]\n', f"{LINE}\n"),
        (f'core_public_keys = ["{KEY}\\n"]\n', f"{LINE}\n"),
        (f'core_public_keys = ["{OTHER} ", "{KEY}"]\n', f"{LINE}\n"),
        ('core_public_keys = ["""\n  ' + PEM.replace("\n", "\n  ") + '"""]\n', f"{LINE}\n"),
    ],
)  # fmt: skip
def test_the_key_is_added_where_the_agent_reads_it(before: str, after: str) -> None:
    assert edit(before) == after


@pytest.mark.parametrize(
    ("text", "why", "snippet"),
    [
        ("port = 1\npasskeys = changeme\n", "line 2: passkeys is not TOML", 'passkeys = ["<the passkey of line 2'),
        ("passkeys = [changeme]\n", "accepts any Core today", "passkeys = ["),
        ("port = 1\nx = 2\nport = 3\n", "port is set twice, on lines 1 and 3", "line 1 and line 3"),
        (f"{LINE}\nport = 1\n{LINE}\n", "lines 1 and 3", LINE),
        ("[a]\nx = 1\n[b]\n[a]\n", "[a] is set twice, on lines 1 and 4", LINE),
        ("[secrets]\na = '1'\na = '2'\n", "a is set twice, on lines 2 and 3", LINE),
        ("core_public_keys = []\ncore_public_key = []\n", "two names", LINE),
        ("disable_container_exec = true\ndisable_container_terminals = true\n", "does not start", LINE),
        (f"[secrets]\n{LINE}\n", "line 2: core_public_keys is inside [secrets]", LINE),
        ('{"passkeys": []}\n', "JSON or YAML", LINE),
        ("- passkeys: []\n", "not TOML at line 1", LINE),
        ("passkeys = 'a\nport = 1\n", "passkeys is not TOML", LINE),
        ("a = '''open\n", "at its end", LINE),
        ('passkeys = ["a"]\nport = ${PORT}\n', "line 2 holds a ${…} without quotes", LINE),
        ("passkeys = [${KEYS}]\n", "v2 skips all of it", LINE),
        ("passkeys = ['ENC[AES256_GCM,data:x]']\n[sops]\nmac = 'ENC[x]'\n", "sops", LINE),
        ("{% if x %}\npasskeys = []\n{% endif %}\n", "template", LINE),
    ],
)
def test_a_file_that_does_not_load_is_refused_and_the_open_agent_named(text: str, why: str, snippet: str) -> None:
    with pytest.raises(EditRefused) as refused:
        edit_periphery_config(text, key=KEY)
    assert why in refused.value.what
    assert snippet in refused.value.snippet
    assert "changeme" not in str(refused.value) + refused.value.snippet


def test_a_bad_key_is_never_written() -> None:
    for key in ("", "file:/a", ED25519, KEY[:-1], PEM, f"{KEY},{OTHER}"):
        with pytest.raises(KeyRejected):
            edit_periphery_config("port = 1\n", key=key)


def test_a_plan_is_made_with_the_placeholder() -> None:
    planned = edit('passkeys = ["a"]\n', "{core_public_key}")
    assert planned.replace("{core_public_key}", KEY) == edit('passkeys = ["a"]\n')


def test_misplaced_keys_are_noted() -> None:
    edited = edit_periphery_config(f"port = 1\n[logging]\n{LINE}\n", key=KEY)
    assert edited.text == f"port = 1\n{LINE}\n[logging]\n{LINE}\n"
    assert "line 3" in edited.notes[0]
    assert "[logging]" in edited.notes[0]


def test_facts() -> None:
    facts = inspect(
        'port = 8121\nssl_enabled = false\npasskeys = ["hunter2"]\ncore_address = "x"\nroot_directory = "/srv/k"\n'
        "disable_container_exec = true\ndisable_container_terminals = true\n"
    )
    assert (facts.loads, facts.port, facts.ssl_enabled, facts.outbound, facts.root_directory) == (
        True, 8121, False, True, "/srv/k",
    )  # fmt: skip
    assert facts.passkeys == ("hunter2",)
    assert "hunter2" not in repr(facts) + str(facts)
    assert facts.alias_pairs == (("disable_container_terminals", "disable_container_exec"),)
    assert inspect("passkeys = []").passkeys == ()
    assert inspect("").passkeys is None
    assert inspect('passkeys = "a, b"').passkeys == ("a", "b")
    assert inspect("core_public_keys = ''").core_public_keys == ()
    broken = inspect("port = 1\npasskeys = hunter2\n")
    assert (broken.loads, broken.error_line) == (False, 2)
    assert "hunter2" not in repr(broken)
    assert inspect("a = 1\nb = 2\na = 3").duplicates == (("a", 1, 3),)


def test_tables_of_a_list_may_repeat_their_keys() -> None:
    text = "[[git_provider]]\ndomain = 'a'\n[git_provider.x]\ny = 1\n[[git_provider]]\ndomain = 'b'\n[git_provider.x]\ny = 2\n"
    assert tomllib.loads(text)
    assert inspect(text).duplicates == ()
    assert edit(text) == f"{LINE}\n{text}"


TOP = st.sampled_from([
    "port = 8120", "passkeys = []", 'passkeys = ["a", "b"] # c', "passkeys = [\n  'a', # [t]\n]", "# comment", "",
    "logging.level = 'info'", "root_directory = '/x' # core_public_keys = []", 'note = """\n[table]\n= "" \\\n"""',
    "core_public_keys = []", f"core_public_keys = ['{OTHER}']", "# core_public_keys = 'x'", "x = { a = [1, 2], b = '#' }",
])  # fmt: skip
TABLES = st.sampled_from(
    [
        "[secrets]\nA = 'b'\n[secrets.x]",
        "[[git_provider]]\ndomain = 'x'",
        "[logging]\npretty = true\n# end",
        "# lonely\n\n[a.b]",
    ]
)


@given(st.lists(TOP, max_size=7), st.lists(TABLES, max_size=3), st.sampled_from(["\n", "\r\n"]), st.booleans())
def test_every_other_byte_is_the_same(top: list[str], tables: list[str], newline: str, last: bool) -> None:
    text = "\n".join([*top, *tables]).replace("\n", newline) + (newline if last else "")
    try:
        old = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        with pytest.raises(EditRefused):
            edit_periphery_config(text, key=KEY)
        return
    edited = edit(text)
    new = tomllib.loads(edited)
    assert KEY in new.pop("core_public_keys")
    was = old.pop("core_public_keys", None)
    assert new == old
    if was is None:
        if "\r\n" in text:
            assert "\n" not in edited.replace("\r\n", "")
        a, b = text.split(newline), edited.replace("\r\n", "\n").split("\n")
        a = [line for part in a for line in part.split("\n")]
        at = b.index(LINE)
        assert b[:at] + b[at + 1 :] == a


@pytest.mark.official("agent-config")
def test_every_official_config(official_file: Path) -> None:
    text = official_file.read_bytes().decode()
    edited = edit(text)
    old, new = tomllib.loads(text), tomllib.loads(edited)
    assert new == {**old, "core_public_keys": [KEY]}
    a, b = text.splitlines(), edited.splitlines()
    at = b.index(LINE)
    assert b[:at] + b[at + 1 :] == a
    assert a[at - 1].startswith(("passkeys", "# core_public_keys"))
