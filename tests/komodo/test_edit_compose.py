from __future__ import annotations

import difflib
from pathlib import Path

import pytest

from komodo.compose.agent_key import SetElsewhere, pin_agent_key
from komodo.compose.edit import edit_compose
from komodo.files.env import edit_env, values
from model.errors import EditRefused, KeyRejected
from tests.komodo import edit_oracle as oracle
from tests.komodo.edit_compose_cases import CASES, Case
from tests.komodo.edit_sharing_cases import SHARING

OTHER = "MCowBQYDK2VuAyEAaZgrjGHeF0KJUe0+n77+qAWOg3YzEzXOmQWaRgO3OGQ="
KEY = "MCowBQYDK2VuAyEATZgrjGHeF0KJUe0+n77+qAWOg3YzEzXOmQWaRgO3OGQ="
ALL = {**CASES, **SHARING}
EDITED = {name: case for name, case in ALL.items() if not case.refused}
REFUSED = {name: case for name, case in ALL.items() if case.refused}


def settled(env: dict[str, str], variables: tuple[str, ...]) -> dict[str, str]:
    """The environment after the env file was edited, as the env file's own edit makes it."""
    text = "".join(f"{name}='{value}'\n" for name, value in env.items())
    return values(edit_env(text, target="2.3.2", tag_variables=variables).text)


def new_lines(before: str, after: str) -> tuple[int, list[str]]:
    """How many lines are new, and which old ones are gone without a changed one in their place."""
    a, b = before.splitlines(keepends=True), after.splitlines(keepends=True)
    ops = difflib.SequenceMatcher(None, a, b, autojunk=False).get_opcodes()
    lost = [line for tag, i1, i2, j1, j2 in ops if tag == "delete" or i2 - i1 > j2 - j1 for line in a[i1:i2]]
    return sum(j2 - j1 for tag, _, _, j1, j2 in ops if tag != "equal"), lost


@pytest.mark.parametrize("name", EDITED)
def test_images_become_exactly_the_target(name: str) -> None:
    case: Case = EDITED[name]
    edit = edit_compose(case.text, target="2.3.2", env=case.env)
    env = settled(case.env, edit.tag_variables)
    before, after = oracle.komodo_services(case.text, case.env), oracle.komodo_services(edit.text, env)
    known = [n for n in (edit.core_service, *edit.agents) if n]
    assert {n: after[n]["image"] for n in known} == dict(zip(known, case.images, strict=True))
    for service in known:
        assert str(after[service].get("init", True)) in ("True", "yes", "${INIT:-true}"), service
        inherited = "extends" in after[service]
        assert oracle.mounts_keys(after[service], env) or inherited, service
    assert set(before) <= set(after)
    assert oracle.rest(edit.text, known) == oracle.rest(case.text, known)
    count, lost = new_lines(case.text, edit.text)
    assert not lost
    assert case.lines is None or count == case.lines
    for part in case.contains:
        assert part in edit.text
    assert edit.reasons


@pytest.mark.parametrize("name", EDITED)
def test_a_second_edit_changes_nothing(name: str) -> None:
    case = EDITED[name]
    edit = edit_compose(case.text, target="2.3.2", env=case.env)
    again = edit_compose(edit.text, target="2.3.2", env=settled(case.env, edit.tag_variables))
    assert again.text == edit.text
    assert again.reasons == ()
    assert not again.from_v1
    with_old_env = edit_compose(edit.text, target="2.3.2", env=case.env)
    assert with_old_env.text == edit.text


@pytest.mark.parametrize("name", REFUSED)
def test_refusals_give_the_reason_and_the_lines_to_paste(name: str) -> None:
    case = REFUSED[name]
    with pytest.raises(EditRefused) as refused:
        edit_compose(case.text, target="2.3.2", env=case.env)
    assert case.refused in f"{refused.value.what}\n{refused.value.hint}"
    assert (
        "2.3.2" in refused.value.snippet
        or "step back" in case.refused
        or "two names" in case.refused
        or ("PERIPHERY_CONFIG_PATHS" in refused.value.snippet)
        or "/config/keys" in refused.value.snippet
    )


def test_line_ends_are_kept() -> None:
    crlf = edit_compose(CASES["crlf"].text, target="2.3.2", env={}).text
    assert "\n" not in crlf.replace("\r\n", "")
    bare = edit_compose(CASES["crlf, no final newline"].text, target="2.3.2", env={}).text
    assert bare.endswith("- ./keys:/config/keys")
    assert "\n" not in bare.replace("\r\n", "")
    assert edit_compose(CASES["bom"].text, target="2.3.2", env={}).text.startswith("\ufeffservices:")


def test_the_named_volume_is_declared_once() -> None:
    text = CASES["volumes"].text
    edit = edit_compose(text, target="2.3.2", env={}, keys_mount="volume")
    data = oracle.load(edit.text)[0]
    assert data["services"]["core"]["volumes"] == ["keys:/config/keys", "./backups:/backups"]
    assert data["volumes"] == {"keys": None}
    assert (edit.keys_source, edit.keys_named) == ("keys", True)
    assert edit_compose(edit.text, target="2.3.2", env={}, keys_mount="volume").text == edit.text


@pytest.mark.parametrize("volumes", ["volumes:\n  data:\n", "volumes:\n", "volumes: {data: {}}\n", "volumes: {}\n", ""])
def test_a_declaration_fits_what_is_there(volumes: str) -> None:
    text = f"{volumes}services:\n  core:\n    image: ghcr.io/moghtech/komodo-core:latest"
    edit = edit_compose(text, target="2.3.2", env={}, keys_mount="volume")
    assert "keys" in oracle.load(edit.text)[0]["volumes"]
    assert edit.text.startswith(volumes[:8])


def test_where_the_keys_are() -> None:
    bind = edit_compose(CASES["volumes"].text, target="2.3.2", env={})
    assert (bind.keys_source, bind.keys_target, bind.keys_named) == ("./keys", "/config/keys", False)
    there = edit_compose(CASES["keys elsewhere"].text, target="2.3.2", env={})
    assert there.keys_source == "/srv/komodo/keys"
    above = edit_compose(CASES["config mounted"].text, target="2.3.2", env={})
    assert (above.keys_source, above.keys_target) == ("./config", "/config")
    windows = edit_compose(CASES["keys windows"].text, target="2.3.2", env={})
    assert (windows.keys_source, windows.keys_named) == (r"C:\komodo\keys", False)


def test_a_target_is_exact_and_v2() -> None:
    for target in ("2", "2.3", "latest", "1.19.5", "v2.3.2"):
        with pytest.raises(EditRefused):
            edit_compose(CASES["literal"].text, target=target, env={})


def test_latest_and_a_digest_alone_are_never_v2() -> None:
    for name in ("literal", "digest only", "latest and digest", "no tag", "literal word"):
        assert edit_compose(CASES[name].text, target="2.3.2", env={}).from_v1, name
    for name in ("moving 2", "moving 2.3", "older v2", "target with digest"):
        assert not edit_compose(CASES[name].text, target="2.3.2", env={}).from_v1, name


@pytest.mark.official("compose")
def test_every_official_compose_file(official_file: Path) -> None:
    text, env_text = official_file.read_bytes().decode(), (official_file.parent / "compose.env").read_bytes().decode()
    env = values(env_text)
    if official_file.name == "caddy.compose.yaml":
        with pytest.raises(EditRefused, match="no service in this file"):
            edit_compose(text, target="2.3.2", env=env)
        return
    version = official_file.parts[-3]
    for keys in ("bind", "volume"):
        edit = edit_compose(text, target="2.3.2", env=env, keys_mount=keys)
        new_env = values(edit_env(env_text, target="2.3.2", tag_variables=edit.tag_variables).text)
        after = oracle.komodo_services(edit.text, new_env)
        assert len(after) == len(oracle.komodo_services(text, env))
        for service in after.values():
            assert service["image"].startswith("ghcr.io/moghtech/komodo-")
            assert service["image"].endswith(":2.3.2")
            assert service["init"] is True
            assert oracle.mounts_keys(service, new_env)
        assert oracle.rest(edit.text, list(after)) == oracle.rest(text, list(after))
        assert not new_lines(text, edit.text)[1]
        assert edit.from_v1 == version.startswith("v1")
        if version.startswith("v2"):
            # Where the env file sets the tag, a default of v2 stays.
            assert new_lines(text, edit.text)[0] == (0 if edit.tag_variables else len(after))
        assert edit_compose(edit.text, target="2.3.2", env=new_env, keys_mount=keys).text == edit.text


@pytest.mark.official("services")
def test_official_v1_agents_can_be_pinned(official_file: Path) -> None:
    text = official_file.read_bytes().decode()
    pinned = pin_agent_key(text, service="periphery", key=KEY)
    environment = oracle.load(pinned.text)[0]["services"]["periphery"]["environment"]
    before = oracle.load(text)[0]["services"]["periphery"].get("environment", {}).get("PERIPHERY_CORE_PUBLIC_KEYS")
    assert environment["PERIPHERY_CORE_PUBLIC_KEYS"] == ",".join([before, KEY] if before else [KEY])
    assert pin_agent_key(pinned.text, service="periphery", key=KEY).text == pinned.text


AGENT = "services:\n  p:\n    image: ghcr.io/moghtech/komodo-periphery:2.3.2\n"


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ("", {"PERIPHERY_CORE_PUBLIC_KEYS": KEY}),
        ("    environment:\n", {"PERIPHERY_CORE_PUBLIC_KEYS": KEY}),
        ("    environment:\n      A: b\n", {"A": "b", "PERIPHERY_CORE_PUBLIC_KEYS": KEY}),
        ("    environment: {A: b}\n", {"A": "b", "PERIPHERY_CORE_PUBLIC_KEYS": KEY}),
        ("    environment: {}\n", {"PERIPHERY_CORE_PUBLIC_KEYS": KEY}),
        ("    environment:\n      - A=b\n", [f"PERIPHERY_CORE_PUBLIC_KEYS={KEY}", "A=b"]),
        ("    environment: [A=b]\n", [f"PERIPHERY_CORE_PUBLIC_KEYS={KEY}", "A=b"]),
        ("    environment:\n      PERIPHERY_CORE_PUBLIC_KEYS: # none\n", {"PERIPHERY_CORE_PUBLIC_KEYS": KEY}),
        ("    environment:\n      PERIPHERY_CORE_PUBLIC_KEYS: ''\n", {"PERIPHERY_CORE_PUBLIC_KEYS": KEY}),
        ("    environment:\n      PERIPHERY_CORE_PUBLIC_KEYS: other # c\n", {"PERIPHERY_CORE_PUBLIC_KEYS": KEY}),
        ("    environment:\n      PERIPHERY_CORE_PUBLIC_KEY: other\n", {"PERIPHERY_CORE_PUBLIC_KEY": KEY}),
        (
            f"    environment:\n      PERIPHERY_CORE_PUBLIC_KEYS: {OTHER} # c\n",
            {"PERIPHERY_CORE_PUBLIC_KEYS": f"{OTHER},{KEY}"},
        ),
        (
            f"    environment:\n      PERIPHERY_CORE_PUBLIC_KEYS: '{OTHER}, x'\n",
            {"PERIPHERY_CORE_PUBLIC_KEYS": f"{OTHER},{KEY}"},
        ),
        (f"    environment:\n      PERIPHERY_CORE_PUBLIC_KEYS: ' {KEY}'\n", {"PERIPHERY_CORE_PUBLIC_KEYS": KEY}),
        (
            "    environment:\n      - PERIPHERY_CORE_PUBLIC_KEYS=file:/config/keys/core.pub\n",
            [f"PERIPHERY_CORE_PUBLIC_KEYS=file:/config/keys/core.pub,{KEY}"],
        ),
        ("    environment:\n      - PERIPHERY_CORE_PUBLIC_KEYS=\n", [f"PERIPHERY_CORE_PUBLIC_KEYS={KEY}"]),
        ("    environment:\n      - 'PERIPHERY_CORE_PUBLIC_KEYS=x'\n", [f"PERIPHERY_CORE_PUBLIC_KEYS={KEY}"]),
    ],
)
def test_an_agent_is_pinned_in_its_own_environment(more: str, expected: object) -> None:
    for newline in ("\n", "\r\n"):
        text = (AGENT + more).replace("\n", newline)
        edit = pin_agent_key(text, service="p", key=KEY)
        assert oracle.load(edit.text)[0]["services"]["p"]["environment"] == expected
        assert len(edit.reasons) == 1
        again = pin_agent_key(edit.text, service="p", key=KEY)
        assert (again.text, again.reasons) == (edit.text, ())


def test_a_plan_is_made_with_the_placeholder() -> None:
    edit = pin_agent_key(AGENT, service="p", key="{core_public_key}")
    assert edit.text.replace("{core_public_key}", KEY) == pin_agent_key(AGENT, service="p", key=KEY).text
    assert pin_agent_key(edit.text, service="p", key="{core_public_key}").text == edit.text


def test_a_pin_that_would_not_hold_is_refused() -> None:
    with pytest.raises(KeyRejected):
        pin_agent_key(AGENT, service="p", key="")
    with pytest.raises(EditRefused, match="no service q"):
        pin_agent_key(AGENT, service="q", key=KEY)
    both = AGENT + "    environment: [PERIPHERY_CORE_PUBLIC_KEY=a, PERIPHERY_CORE_PUBLIC_KEYS=b]\n"
    with pytest.raises(EditRefused, match="two names"):
        pin_agent_key(both, service="p", key=KEY)
    filed = AGENT + "    env_file: .env\n"
    with pytest.raises(SetElsewhere, match="from an env file") as elsewhere:
        pin_agent_key(filed, service="p", key=KEY, given={"PERIPHERY_CORE_PUBLIC_KEYS": "other"})
    assert (elsewhere.value.variable, elsewhere.value.fills) == ("PERIPHERY_CORE_PUBLIC_KEYS", False)
    assert pin_agent_key(filed, service="p", key=KEY, given={"PERIPHERY_CORE_PUBLIC_KEYS": KEY}).text == filed
    for shared in (shared_with_another("[A=b]"), shared_with_another("{A: b}").replace("x-e: &e {A: b}\n", "", 1)):
        at_the_agent = shared.replace("*e\n", "&e {A: b}\n", 1) if "x-e" not in shared else shared
        with pytest.raises(EditRefused, match="shared") as refused:
            pin_agent_key(at_the_agent, service="p", key=KEY)
        assert refused.value.hint


def shared_with_another(environment: str) -> str:
    return f"x-e: &e {environment}\nservices:\n{AGENT[10:]}    environment: *e\n  web:\n    environment: *e # both\n"


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_a_shared_environment_is_merged_with_the_key(newline: str) -> None:
    text = shared_with_another("{A: b}").replace("\n", newline)
    edit = pin_agent_key(text, service="p", key=KEY)
    own = f"    environment: *e{newline}  web"
    new = f'    environment:{newline}      <<: *e{newline}      PERIPHERY_CORE_PUBLIC_KEYS: "{KEY}"{newline}  web'
    assert edit.text == text.replace(own, new)
    services = oracle.load(edit.text)[0]["services"]
    assert services["p"]["environment"] == {"A": "b", "PERIPHERY_CORE_PUBLIC_KEYS": KEY}
    assert services["web"]["environment"] == {"A": "b"}
    assert pin_agent_key(edit.text, service="p", key=KEY).text == edit.text


@pytest.mark.official("services")
def test_official_files_as_windows_and_hand_made_copies_have_them(official_file: Path) -> None:
    text = official_file.read_bytes().decode()
    plain = edit_compose(text, target="2.3.2", env={}).text
    assert edit_compose(text.replace("\n", "\r\n"), target="2.3.2", env={}).text == plain.replace("\n", "\r\n")
    assert edit_compose("\ufeff" + text, target="2.3.2", env={}).text == "\ufeff" + plain
    assert edit_compose(text + "\n", target="2.3.2", env={}).text == plain + "\n"
    wide = "\n".join(" " * (len(x) - len(x.lstrip(" "))) + x for x in text.split("\n"))
    doubled = "\n".join(" " * (len(x) - len(x.lstrip(" "))) + x for x in plain.split("\n"))
    assert edit_compose(wide, target="2.3.2", env={}).text == doubled


@pytest.mark.parametrize("mount", ["${KEYS}:/config/keys", "'~/k:/config/keys:ro'", "{source: k, target: /config}"])
def test_lines_to_paste_never_move_the_keys(mount: str) -> None:
    text = (
        f"services:\n  core:\n    build: .\n    image: ghcr.io/moghtech/komodo-core:1\n    volumes:\n      - {mount}\n"
    )
    with pytest.raises(EditRefused) as refused:
        edit_compose(text, target="2.3.2", env={})
    assert ":2.3.2" in refused.value.snippet
    assert "keys" not in refused.value.snippet
