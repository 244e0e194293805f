# ruff: noqa: E501 - a table reads best with a case on a line
"""Sets of files as users give them to `edit`: the result of each file, and what is reported."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from komodo.files.edit_set import FileEdit
from komodo.files.grouping import edit_files

KEY = "MCowBQYDK2VuAyEATZgrjGHeF0KJUe0+n77+qAWOg3YzEzXOmQWaRgO3OGQ="
OTHER = "MCowBQYDK2VuAyEAaZgrjGHeF0KJUe0+n77+qAWOg3YzEzXOmQWaRgO3OGQ="
CORE = "ghcr.io/moghtech/komodo-core"
AGENT = "ghcr.io/moghtech/komodo-periphery"
PINS = "PERIPHERY_CORE_PUBLIC_KEYS"
K = "    volumes: [./keys:/config/keys]\n"
SHARED = f"services:\n  core:\n    image: {CORE}:2.0.0\n    init: true\n{K}  p:\n    image: {AGENT}:2.0.0\n    init: true\n{K}    env_file: compose.env\n"


def agent(*environment: str, tag: str = "latest", more: str = "") -> str:
    lines = "".join(f"      {line}\n" for line in environment)
    return f"services:\n  p:\n    image: {AGENT}:{tag}\n    init: true\n{K}{more}" + (
        "    environment:\n" + lines
    ) * bool(lines)


def core(more: str = "", tag: str = "latest") -> str:
    return f"services:\n  core:\n    image: {CORE}:{tag}\n    init: true\n{K}{more}"


@dataclass(frozen=True)
class Given:
    """Files and what is expected of each: `=` unchanged, `!text` refused with that text, else a part of the result."""

    files: dict[str, str]
    expected: dict[str, str]
    key: str = ""
    by_file: bool = False
    reported: tuple[str, ...] = ()
    """Parts of notes, reasons, hints or snippets."""
    unreported: tuple[str, ...] = field(default=())


CASES: dict[str, Given] = {
    # pins
    "pin in a variable": Given(
        {"compose.yaml": agent(f"{PINS}: ${{CORE_KEY}}"), ".env": "CORE_KEY=\n"},
        {"compose.yaml": f"{PINS}: ${{CORE_KEY}}\n", ".env": f"CORE_KEY={KEY}\n"}, KEY, reported=("it was empty",),
    ),
    "pin in a variable with another key": Given(
        {"compose.yaml": agent(f"{PINS}: ${{CORE_KEY:-}}"), ".env": f"CORE_KEY='{OTHER}' # old\n"},
        {"compose.yaml": "${CORE_KEY:-}", ".env": f"CORE_KEY='{OTHER},{KEY}' # old\n"}, KEY,
    ),
    "pin in a variable that has it": Given(
        {"compose.yaml": agent(f"{PINS}: ${{CORE_KEY}}", tag="2.3.2"), ".env": f"CORE_KEY={KEY}\n"},
        {"compose.yaml": "=", ".env": "="}, KEY,
    ),
    "pin in a variable, list": Given(
        {"compose.yaml": agent(f"- {PINS}=${{CORE_KEY}}"), ".env": "CORE_KEY=x\n"},
        {"compose.yaml": f"- {PINS}=${{CORE_KEY}}", ".env": f"CORE_KEY={KEY}\n"}, KEY, reported=("it held no key",),
    ),
    "pin in a variable of another variable": Given(
        {"compose.yaml": agent(f"{PINS}: ${{A}}"), ".env": f"B={OTHER}\nA=${{B}}\n"},
        {"compose.yaml": "${A}", ".env": f"B={OTHER},{KEY}\nA=${{B}}\n"}, KEY,
    ),
    "pin in a variable that is not given": Given(
        {"compose.yaml": agent(f"{PINS}: ${{CORE_KEY}}")}, {"compose.yaml": "!p is ${CORE_KEY}, which was not given"}, KEY, reported=(f"CORE_KEY={KEY}", "give the env file"),
    ),
    "pin in a variable that another tool fills": Given(
        {"compose.yaml": agent(f"{PINS}: ${{CORE_KEY}}"), ".env": "CORE_KEY=op://vault/komodo/key\n"},
        {".env": "!filled in by another tool"}, KEY,
    ),
    "pin of two variables": Given(
        {"compose.yaml": agent(f"{PINS}: ${{A}},${{B}}"), ".env": f"A={OTHER}\nB=file:/x.pub\n"},
        {"compose.yaml": f'{PINS}: "${{A}},${{B}},{KEY}"', ".env": "="}, KEY,
    ),
    "pin in an env file of the agent": Given(
        {"compose.yaml": agent(more="    env_file: p.env\n"), "p.env": f"export {PINS}={OTHER}\n"},
        {"compose.yaml": f"{AGENT}:2.3.2", "p.env": f"export {PINS}={OTHER},{KEY}\n"}, KEY,
    ),
    "alias of the pin in an env file": Given(
        {"compose.yaml": agent(more="    env_file: p.env\n"), "p.env": "PERIPHERY_CORE_PUBLIC_KEY=\n"},
        {"p.env": f"PERIPHERY_CORE_PUBLIC_KEY={KEY}\n"}, KEY,
    ),
    "file: in the environment of an agent alone": Given(
        {"compose.yaml": agent(f"{PINS}: file:/config/keys/core.pub", tag="2.0.0")},
        {"compose.yaml": f'{PINS}: "file:/config/keys/core.pub,{KEY}"'}, KEY,
    ),
    "another Core's key is added to": Given(
        {"compose.yaml": agent(f"{PINS}: {OTHER}")}, {"compose.yaml": f'{PINS}: "{OTHER},{KEY}"'}, KEY, reported=("added to the 1",),
    ),
    "blanks in the list, which v2 does not start with": Given(
        {"compose.yaml": agent(f"{PINS}: '{OTHER}, {KEY}'")}, {"compose.yaml": f'{PINS}: "{OTHER},{KEY}"'}, KEY,
    ),
    "file: of Core's own keys": Given(
        {"compose.yaml": SHARED, "compose.env": f"{PINS}=file:/config/keys/core.pub\n"},
        {"compose.yaml": f"{AGENT}:2.3.2", "compose.env": "="}, KEY,
    ),
    "agents distinguished by profiles are both pinned": Given(
        {"compose.yaml": f"services:\n  a:\n    profiles: [a]\n    image: {AGENT}:1\n  b:\n    profiles: [b]\n    image: {AGENT}:1\n"},
        {"compose.yaml": f'      {PINS}: "{KEY}"\n    init: true\n    volumes:\n      - ./keys:/config/keys\n  b:'}, KEY,
    ),
    "inline, and what it means": Given({"periphery.config.toml": "port = 1\n"}, {"periphery.config.toml": f'core_public_keys = ["{KEY}"]'}, KEY, reported=("after a rotation",)),
    "by file": Given(
        {"periphery.config.toml": "root_directory = '/srv/k'\n"},
        {"periphery.config.toml": 'core_public_keys = ["file:/srv/k/keys/core.pub"]\n'}, KEY, by_file=True,
        reported=("does not start without /srv/k/keys/core.pub", f"'{KEY}' '-----END PUBLIC KEY-----' | sudo tee /srv/k/keys/core.pub"), unreported=("after a rotation",),
    ),
    "by file, where one is named": Given(
        {"periphery.config.toml": 'core_public_keys = ["file:/a/b.pub"]\n'}, {"periphery.config.toml": "="}, KEY, by_file=True,
    ),
    "by file, in addition to another key": Given(
        {"periphery.config.toml": f'core_public_keys = ["{OTHER}"]\n'},
        {"periphery.config.toml": f'core_public_keys = ["file:/etc/komodo/keys/core.pub", "{OTHER}"]\n'}, KEY, by_file=True,
    ),
    "by file, in a container": Given(
        {"compose.yaml": agent()}, {"compose.yaml": f'{PINS}: "file:/config/keys/core.pub"'}, KEY, by_file=True, reported=("does not start without /config/keys/core.pub", "sudo tee FOLDER/core.pub"),
    ),
    # images that are named and not edited
    "quadlet": Given({"k.container": f"[Container]\nImage={AGENT}:latest\n"}, {"k.container": f"!a Quadlet is not edited, and it names Komodo's images: line 2: {AGENT}:latest"}, reported=(f"Image={AGENT}:2.3.2", "RunInit=true")),
    "nix": Given({"k.nix": f'{{ image = "{CORE}:latest"; }}\n'}, {"k.nix": "!line 1"}),
    "script": Given({"up.sh": f"docker run -d \\\n  {AGENT}:latest\n"}, {"up.sh": "!a script is not edited"}),
    "dockerfile": Given({"Dockerfile": f"FROM {AGENT}:latest\n"}, {"Dockerfile": "!a Dockerfile"}),
    "services as a list": Given({"compose.yaml": f"services:\n  - name: komodo\n    image: {CORE}:1\n"}, {"compose.yaml": "!line 3"}),
    "kubernetes": Given({"k.yaml": f"apiVersion: v1\nkind: Pod\nspec:\n  image: {CORE}:1\n"}, {"k.yaml": "!a Kubernetes manifest"}),
    "helm values": Given({"values.yaml": "image:\n  repository: ghcr.io/moghtech/komodo-core\n  tag: latest\n"}, {"values.yaml": "!line 2"}),
    "helm values without a registry": Given({"values.yaml": "komodo:\n  tag: latest\n"}, {"values.yaml": "!Komodo is named on line 1"}, unreported=("leave it out",)),
    "ansible task": Given({"main.yml": f"- name: up\n  docker_container:\n    image: {AGENT}:latest\n"}, {"main.yml": "!line 3"}),
    "ansible variables": Given({"all.yml": "komodo_version: '{{ v }}'\n"}, {"all.yml": "!a template is not edited; Komodo is named on line 1"}, unreported=("leave it out",)),
    "ansible task with compose inside": Given({"main.yml": f"- docker_compose_v2:\n    definition:\n      services:\n        core:\n          image: {CORE}:1\n"}, {"main.yml": "!line 5"}),
    "an image in an env file alone": Given({".env": f"KOMODO_IMAGE={CORE}:latest\n"}, {".env": f"!line 1 names {CORE}:latest"}, reported=("give the compose file",)),
    "an image in an env file with its compose file": Given({"compose.yaml": core().replace(f"{CORE}:latest", "${KOMODO_IMAGE}"), ".env": f"KOMODO_IMAGE={CORE}:latest\n"}, {".env": f"KOMODO_IMAGE={CORE}:2.3.2\n"}, unreported=("is not edited",)),
    "an image that is named in addition": Given({"compose.yaml": core("    labels:\n      x: ghcr.io/moghtech/komodo-periphery:1\n")}, {"compose.yaml": f"{CORE}:2.3.2"}, reported=("line 7 names ghcr.io/moghtech/komodo-periphery:1",)),
    "an old image in a comment": Given({"compose.yaml": core(f"    # image: {CORE}:1\n")}, {"compose.yaml": f"{CORE}:2.3.2"}, unreported=("is not edited",)),
    "compose of something else": Given({"compose.yaml": "services:\n  web:\n    image: nginx\n"}, {"compose.yaml": "="}, reported=("nothing to do",)),
    "a link in a comment": Given({"compose.yaml": "# github.com/moghtech/komodo\nservices:\n  web:\n    image: nginx\n"}, {"compose.yaml": "="}),
    "neither": Given({"README.md": "# hi\n"}, {"README.md": "!no file that Komodo's upgrade changes"}, reported=("leave it out",)),
    # templates
    "toml template": Given({"periphery.config.toml": "passkeys = [{{ passkey }}]\n"}, {"periphery.config.toml": "!line 1 is a template"}, KEY, unreported=("open it was",)),
    # encrypted
    "sops file without a name that is edited": Given(
        {"compose.yaml": core(), "secrets.env": "KOMODO_PASSKEY=ENC[AES256_GCM,data:x]\nsops_mac=ENC[y]\n"},
        {"compose.yaml": f"{CORE}:2.3.2", "secrets.env": "="}, reported=("encrypted",),
    ),
    "sops file with one": Given(
        {"compose.yaml": core(tag="${TAG}"), ".env": "TAG=latest\nKOMODO_PASSKEY=ENC[AES256_GCM,data:x]\nsops_mac=ENC[y]\n"},
        {".env": "!sops"},
    ),
    "sops YAML without a name that is edited": Given({"secrets.yaml": "passkey: ENC[AES256_GCM,data:x]\nsops:\n    mac: ENC[y]\n"}, {"secrets.yaml": "="}),
    # extends
    "extends from a file that is given": Given(
        {"compose.yaml": f"services:\n  core:\n    extends: {{file: ./base.yaml, service: base}}\n    image: {CORE}:1\n", "base.yaml": "services:\n  base:\n    init: true\n    volumes: [./keys:/config/keys]\n"},
        {"compose.yaml": f"    image: {CORE}:2.3.2\n", "base.yaml": "="},
    ),
    "extends from a file that has the image": Given(
        {"compose.yaml": "services:\n  core:\n    extends: {file: base.yaml, service: base}\n    restart: always\n", "base.yaml": f"services:\n  base:\n    image: {CORE}:1\n"},
        {"compose.yaml": "=", "base.yaml": f"{CORE}:2.3.2"},
    ),
    # notes
    "user": Given({"compose.yaml": core("    user: 1000:1000\n")}, {}, reported=("runs as user 1000:1000",)),
    "root": Given({"compose.yaml": core("    user: '0'\n")}, {}, unreported=("runs as user",)),
    "host without a scheme": Given({"compose.yaml": core("    environment: {KOMODO_HOST: '${H}'}\n"), ".env": "H=komodo.lan\n"}, {}, reported=("KOMODO_HOST is komodo.lan, without https://",)),
    "host without a scheme in an env file": Given({"compose.yaml": core("    env_file: .env\n"), ".env": "KOMODO_HOST=komodo.lan\n"}, {}, reported=("without https://",)),
    "host with a scheme": Given({"compose.yaml": core("    environment: [KOMODO_HOST=http://komodo.lan]\n")}, {}, unreported=("KOMODO_HOST",)),
    "v1 variables under a v2 file": Given({"compose.yaml": core("    environment: {KOMODO_DATABASE_USERNAME: '${KOMODO_DATABASE_USERNAME}'}\n", "2.0.0"), ".env": "KOMODO_DB_USERNAME=a\n"}, {}, reported=("add KOMODO_DATABASE_USERNAME there",)),
    "v2 variables under a v1 file": Given({"compose.yaml": core("    environment: {KOMODO_DATABASE_USERNAME: '${KOMODO_DB_USERNAME}'}\n"), ".env": "KOMODO_DATABASE_USERNAME=a\n"}, {}, reported=("add KOMODO_DB_USERNAME there",)),
    "swarm": Given({"compose.yaml": core("    deploy: {placement: {constraints: [x]}}\n")}, {}, reported=("in a Swarm",)),
    "resources are no swarm": Given({"compose.yaml": core("    deploy: {resources: {limits: {cpus: '1'}}}\n")}, {}, unreported=("Swarm",)),
    "passkeys that became empty": Given({"compose.yaml": agent(more="    env_file: .env\n"), ".env": "PERIPHERY_PASSKEYS=${KOMODO_PASSKEY}\n"}, {}, reported=("PERIPHERY_PASSKEYS is empty",)),
    "stray core address": Given({"compose.yaml": agent("PERIPHERY_CORE_ADDRESS: ws://core:9120")}, {}, reported=("no longer listens",)),
    "the core address of a v2 agent": Given({"compose.yaml": agent("PERIPHERY_CORE_ADDRESS: ws://core:9120", tag="2.0.0")}, {}, unreported=("no longer listens",)),
    "an agent of one's own image": Given({"compose.yaml": core() + "  periphery:\n    image: registry.lan/my-agent:3\n"}, {"compose.yaml": f"{CORE}:2.3.2"}, reported=("bring it to v2 yourself, or Core loses it",)),
}  # fmt: skip


def words(edits: tuple[FileEdit, ...]) -> str:
    refusals = [f"{e.refused.what}\n{e.refused.hint}\n{e.refused.snippet}" for e in edits if e.refused]
    return "\n".join([*(line for e in edits for line in (*e.reasons, *e.notes)), *refusals])


@pytest.mark.parametrize("name", CASES)
def test_files_as_they_are_given(name: str) -> None:
    case = CASES[name]
    edits = edit_files(list(case.files.items()), target="2.3.2", key=case.key, by_file=case.by_file)
    found = {e.path: e for e in edits}
    for path, expected in case.expected.items():
        edit = found[path]
        if expected.startswith("!"):
            assert edit.refused is not None, edit.after
            assert expected[1:] in edit.refused.what
        elif expected == "=":
            assert (edit.refused, edit.after) == (None, edit.before)
        else:
            assert edit.refused is None, edit.refused
            assert expected in edit.after
    for part in case.reported:
        assert part in words(edits)
    for part in case.unreported:
        assert part not in words(edits)
    if not any(e.refused for e in edits):
        again = edit_files([(e.path, e.after) for e in edits], target="2.3.2", key=case.key, by_file=case.by_file)
        assert [(e.after, e.refused) for e in again] == [(e.after, None) for e in edits]
