# ruff: noqa: E501 - a table reads best with a case on a line
"""Compose files in shapes that exist, and the result of each edit."""

from __future__ import annotations

from dataclasses import dataclass, field
from textwrap import dedent


@dataclass(frozen=True)
class Case:
    text: str
    env: dict[str, str] = field(default_factory=dict)
    refused: str = ""
    """Part of the message; empty: it is edited."""
    images: tuple[str, ...] = ("ghcr.io/moghtech/komodo-core:2.3.2",)
    """The effective images of Komodo's services afterwards."""
    lines: int | None = None
    """How many lines are new (a changed line counts as one)."""
    contains: tuple[str, ...] = ()


def one(image: str, more: str = "", env: dict[str, str] | None = None, **rest: object) -> Case:
    body = dedent(more)
    indented = "".join(f"    {line}\n" if line else "\n" for line in body.splitlines())
    return Case(f"services:\n  core:\n    image: {image}\n{indented}", env or {}, **rest)  # type: ignore[arg-type]


CORE = "ghcr.io/moghtech/komodo-core"
D = "@sha256:" + "ab" * 32
V = "volumes:\n  - ./backups:/backups\n"
K = "volumes:\n  - ./keys:/config/keys\n"

CASES: dict[str, Case] = {
    # the image
    "default": one(CORE + ":${COMPOSE_KOMODO_IMAGE_TAG:-latest}", contains=("_TAG:-2.3.2}",)),
    "default, set": one(CORE + ":${TAG:-latest}", env={"TAG": "1.19.5"}, contains=("${TAG:-2.3.2}",)),
    "default, dash": one(CORE + ":${TAG-latest}", contains=("${TAG-2.3.2}",)),
    "default, dash, set empty": one(CORE + ":${TAG-latest}", env={"TAG": ""}),
    "default, colon dash, set empty": one(CORE + ":${TAG:-latest}", env={"TAG": ""}),
    "no default, unset": one(CORE + ":${TAG}", contains=("${TAG:-2.3.2}",)),
    "no default, set": one(CORE + ":${TAG}", env={"TAG": "latest"}, contains=(":${TAG}",)),
    "no braces": one(CORE + ":$TAG", env={"TAG": "latest"}),
    "no braces, unset": one(CORE + ":$TAG"),
    "error, unset": one(CORE + ":${TAG:?set it}", refused="TAG is not set"),
    "error, set": one(CORE + ":${TAG:?set it}", env={"TAG": "1"}, contains=("${TAG:?set it}",)),
    "alternative": one(CORE + ":${TAG:+1.19.5}", env={"TAG": "x"}, contains=("komodo-core:2.3.2\n",)),
    "nested default": one(CORE + ":${A:-${B:-latest}}", contains=("${A:-2.3.2}",)),
    "nested default, set": one(CORE + ":${A:-${B:-latest}}", env={"B": "1.18.0"}),
    "literal": one(CORE + ":latest"),
    "literal exact": one(CORE + ":1.19.5"),
    "literal with v": one(CORE + ":v1.19.5"),
    "literal arm": one("ghcr.io/mbecker20/komodo:latest-aarch64"),
    "literal word": one(CORE + ":dev"),
    "no tag": one(CORE),
    "comment behind": one(CORE + ":latest # renovate: keep", contains=(":2.3.2 # renovate: keep",)),
    "comment after tab": one(CORE + ":latest\t# tabbed", contains=(":2.3.2\t# tabbed",)),
    "double quotes": one(f'"{CORE}:latest"', contains=(':2.3.2"',)),
    "single quotes": one(f"'{CORE}:${{TAG:-latest}}'", contains=(":-2.3.2}'",)),
    "tag and digest": one(CORE + ":1.19.5" + D),
    "latest and digest": one(CORE + ":latest" + D),
    "digest only": one(CORE + D),
    "variable and digest": one(CORE + ":${TAG:-latest}" + D, contains=("${TAG:-2.3.2}\n",)),
    "digest in variable": one(CORE + "@${DIGEST}", env={"DIGEST": "sha256:" + "ab" * 32}),
    "target with digest": one(CORE + ":2.3.2" + D, K, images=(CORE + ":2.3.2" + D,)),
    "moving 2": one(CORE + ":2", K),
    "moving 2.3": one(CORE + ":2.3", K),
    "older v2": one(CORE + ":2.0.0", K),
    "newer": one(CORE + ":2.4.0", refused="step back"),
    "newer, moving": one(CORE + ":2.4", refused="step back"),
    "newer, variable": one(CORE + ":${TAG:-latest}", env={"TAG": "3"}, refused="step back"),
    "old name": one("ghcr.io/mbecker20/komodo:${COMPOSE_KOMODO_IMAGE_TAG:-latest}"),
    "old name, digest": one("ghcr.io/mbecker20/komodo" + D),
    "name of v1.17.0-dev": one("ghcr.io/moghtech/komodo:1.17.0-dev"),
    "name of v1.17.0-dev, agent": Case(
        "services:\n  p:\n    image: ghcr.io/moghtech/periphery:${TAG:-latest}\n",
        {"TAG": "1.17.0-dev"},
        images=("ghcr.io/moghtech/komodo-periphery:2.3.2",),
    ),
    "mirror": one(
        "registry.lan:5000/ghcr/moghtech/komodo-core:1.19.5",
        images=("registry.lan:5000/ghcr/moghtech/komodo-core:2.3.2",),
    ),
    "no registry": one("moghtech/komodo-core:latest", images=("moghtech/komodo-core:2.3.2",)),
    "registry variable": one("${REGISTRY}/moghtech/komodo-core:latest", images=("/moghtech/komodo-core:2.3.2",)),
    "registry default": one("${REGISTRY:-ghcr.io}/moghtech/komodo-core:${TAG:-latest}"),
    "registry set": one(
        "${REGISTRY}/moghtech/komodo-core:${TAG:-latest}",
        env={"REGISTRY": "r.lan:5000"},
        images=("r.lan:5000/moghtech/komodo-core:2.3.2",),
    ),
    "whole image set": one("${KOMODO_IMAGE}", env={"KOMODO_IMAGE": CORE + ":latest"}),
    "whole image set, old name": one("${KOMODO_IMAGE}", env={"KOMODO_IMAGE": "ghcr.io/mbecker20/komodo:1.16.12"}),
    "whole image default": one("${KOMODO_IMAGE:-" + CORE + ":latest}", contains=(CORE + ":2.3.2}",)),
    "whole image unset": one("${KOMODO_IMAGE}", refused="KOMODO_IMAGE"),
    "name in variable": one("ghcr.io/${OWNER}/komodo-core:latest", env={"OWNER": "moghtech"}),
    "old name in variable": one("ghcr.io/${OWNER}/komodo:latest", env={"OWNER": "mbecker20"}, refused="old name"),
    "tag of parts": one(CORE + ":${A}.${B}", env={"A": "1", "B": "19"}),
    "a build of someone else": one("ghcr.io/someone/komodo-core:1.19.5", refused="not one of Komodo's own"),
    "variable shared with a database": Case(
        f"services:\n  db:\n    image: mongo:${{VERSION}}\n  core:\n    image: {CORE}:${{VERSION}}\n",
        {"VERSION": "7"},
        refused="step back",
    ),
    "variable shared, lower": Case(
        f"services:\n  db:\n    image: mongo:${{VERSION:-1}}\n  core:\n    image: {CORE}:${{VERSION:-1}}\n",
        contains=("komodo-core:2.3.2\n", "mongo:${VERSION:-1}"),
    ),
    "folded image": Case(f"services:\n  core:\n    image: >-\n      {CORE}:latest\n", refused="one line"),
    "template image": one('"ghcr.io/moghtech/komodo-core:{{ komodo_version }}"', refused="another tool"),
    "op image": one(CORE + ":${TAG}", env={"TAG": "op://vault/komodo/tag"}, refused="another tool"),
    # init
    "init there": one(CORE + ":latest", "init: true\n" + V, lines=2),
    "init false": one(CORE + ":latest", "init: false # why\n", contains=("init: true # why",)),
    "init empty": one(CORE + ":latest", "init:\nrestart: always\n", contains=("init: true\n",)),
    "init yes": one(CORE + ":latest", "init: yes\n" + V, lines=2),
    "init variable": one(CORE + ":latest", "init: ${INIT:-true}\n" + V, lines=2),
    "init reset": one(CORE + ":latest", "init: !reset null\n", refused="plain true"),
    # volumes
    "volumes": one(CORE + ":latest", V, lines=3),
    "volumes not indented": one(
        CORE + ":latest", "volumes:\n- ./b:/backups\n", contains=("\n    - ./keys:/config/keys\n",)
    ),
    "volumes deep": one(CORE + ":latest", "volumes:\n    - ./b:/backups\n", contains=("\n        - ./keys:",)),
    "volumes with comments": one(
        CORE + ":latest", "volumes: # all of them\n  ## backups\n  - ./b:/backups # c\n\n  # - ./x:/x\n", lines=3
    ),
    "volumes flow": one(
        CORE + ":latest", "volumes: [./b:/backups, 'c:/d']\n", contains=('["./keys:/config/keys", ./b',)
    ),
    "volumes flow empty": one(CORE + ":latest", "volumes: []\n", contains=('["./keys:/config/keys"]',)),
    "volumes empty": one(CORE + ":latest", "volumes:\n  # - ./b:/backups\nrestart: always\n"),
    "volumes long": one(CORE + ":latest", "volumes:\n  - type: bind\n    source: ./b\n    target: /backups\n"),
    "volumes override": one(CORE + ":latest", "volumes: !override\n  - ./b:/backups\n"),
    "volumes reset": one(CORE + ":latest", "volumes: !reset []\n", refused="list"),
    "keys there": one(CORE + ":latest", "volumes:\n  - ./keys:/config/keys\n", lines=2),
    "keys elsewhere": one(CORE + ":latest", "volumes:\n  - /srv/komodo/keys:/config/keys:rw\n", lines=2),
    "keys volume": one(CORE + ":latest", "volumes:\n  - keys:/config/keys\n", lines=2),
    "keys long": one(
        CORE + ":latest", "volumes:\n  - type: volume\n    source: keys\n    target: /config/keys/\n", lines=2
    ),
    "keys by variable": one(CORE + ":latest", "volumes:\n  - ${KEYS:-./keys}:/config/keys\n", lines=2),
    "keys windows": one(CORE + ":latest", 'volumes:\n  - "C:\\\\komodo\\\\keys:/config/keys"\n', lines=2),
    "keys in memory": one(
        CORE + ":latest", "volumes:\n  - {type: tmpfs, target: /config/keys}\n", refused="would be lost"
    ),
    "keys without a name": one(CORE + ":latest", "volumes:\n  - /config/keys\n", refused="would be lost"),
    "config in memory": one(
        CORE + ":latest", "volumes:\n  - {type: tmpfs, target: /config}\n", contains=("- ./keys:/config/keys\n",)
    ),
    "keys at home": one(CORE + ":latest", "volumes:\n  - ~/keys:/config/keys\n", lines=2),
    "keys in a shell's variable": one(CORE + ":latest", "volumes:\n  - ${HOME}/keys:/config/keys\n", lines=2),
    "keys in a variable of Portainer": one(CORE + ":latest", "volumes:\n  - ${KEYS}:/config/keys\n", lines=2),
    "keys in two variables": one(CORE + ":latest", "volumes:\n  - ${APP_DATA_DIR}/${KEYS}:/config/keys:rw\n", lines=2),
    "keys in a variable, long": one(
        CORE + ":latest", "volumes:\n  - {type: bind, source: '${KEYS}', target: /config/keys}\n", lines=2
    ),
    "mount target of an unset variable": one(
        CORE + ":latest", "volumes:\n  - ./data:/${DATA}\n", contains=("- ./keys:/config/keys\n",), lines=3
    ),
    "mount target of unset variables": one(
        CORE + ":latest", "volumes:\n  - ./data:/${A}/${B}\n", contains=("- ./keys:/config/keys\n",), lines=3
    ),
    "mount target of an unset variable, long": one(
        CORE + ":latest",
        "volumes:\n  - {type: bind, source: ./d, target: '/${DATA}'}\n",
        contains=("- ./keys:/config/keys\n",),
    ),
    "mount of two unset variables": one(
        CORE + ":latest", "volumes:\n  - ${A}/${B}\n", contains=("- ./keys:/config/keys\n",)
    ),
    "mount target of a set variable": one(
        CORE + ":latest", "volumes:\n  - ./keys:${KEYS}\n", env={"KEYS": "/config/keys"}, lines=2
    ),
    "v2 core without its keys": one(CORE + ":2.0.0", V, refused="docker cp"),
    "v2 core without its keys, named": one(
        CORE + ":2", "container_name: komodo\n", refused="docker cp komodo:/config/keys ./keys"
    ),
    "v2 core with its key elsewhere": one(
        CORE + ":2.0.0", "environment:\n  KOMODO_PRIVATE_KEY: file:/data/core.key\nvolumes: [./data:/data]\n"
    ),
    "v2 core with its key in a place unknown": one(
        CORE + ":2.0.0", "environment:\n  KOMODO_PRIVATE_KEY: file:/data/core.key\nvolumes: ['./data:${DATA}']\n"
    ),
    "v2 core with its key elsewhere inside": one(
        CORE + ":2.0.0",
        "environment:\n  KOMODO_PRIVATE_KEY: file:/data/core.key\n" + V,
        refused='docker cp "$(docker compose ps -q core)":/data/core.key ./keys/core.key',
    ),
    "v2 core with its key there": one(
        CORE + ":2.0.0", "environment: [KOMODO_PRIVATE_KEY=file:/config/keys/core.key]\n", refused="docker cp"
    ),
    "v2 agent without its keys, outbound": Case(
        "services:\n  p:\n    image: ghcr.io/moghtech/komodo-periphery:2\n    environment:\n"
        "      PERIPHERY_CORE_ADDRESS: wss://core\n",
        refused="a Core that has this agent's key refuses it",
    ),
    "v2 agent without its keys": Case(
        "services:\n  p:\n    image: ghcr.io/moghtech/komodo-periphery:2\n",
        images=("ghcr.io/moghtech/komodo-periphery:2.3.2",),
    ),
    "keys read-only": one(CORE + ":latest", "volumes:\n  - ./keys:/config/keys:ro\n", refused="read-only"),
    "config mounted": one(CORE + ":latest", "volumes:\n  - ./config:/config\n", lines=2),
    "config file mounted": one(CORE + ":latest", "volumes:\n  - ./core.config.toml:/config/config.toml:ro\n", lines=3),
    "config mounted read-only": one(CORE + ":latest", "volumes:\n  - ./config:/config:ro\n", refused="read-only"),
    "keys of another": Case(
        f"services:\n  web:\n    image: nginx\n    volumes: ['./keys:/etc/ssl']\n  core:\n    image: {CORE}:latest\n",
        refused="another service mounts",
    ),
    # shape of the file
    "four spaces": Case(
        f"services:\n    core:\n        image: {CORE}:latest\n        ports:\n            - 9120:9120\n"
    ),
    "no final newline": Case(f"services:\n  core:\n    image: {CORE}:latest"),
    "crlf": Case(f"services:\r\n  core:\r\n    image: {CORE}:latest\r\n    volumes:\r\n      - a:/b\r\n"),
    "crlf, no final newline": Case(f"services:\r\n  core:\r\n    image: {CORE}:latest"),
    "bom": Case(f"\ufeffservices:\n  core:\n    image: {CORE}:latest\n"),
    "carriage returns": Case(f"services:\r  core:\r    image: {CORE}:latest\r", refused="carriage return"),
    "version key": Case(f"version: '3.8'\nservices:\n  core:\n    image: {CORE}:latest\n"),
    "name key": Case(f"name: komodo\nservices:\n  core:\n    image: {CORE}:latest\n"),
    "image last": Case(
        f"services:\n  core:\n    restart: always\n    volumes:\n      - a:/b\n    image: {CORE}:latest\n"
    ),
    "odd name": Case(f"services:\n  'my.komodo':\n    image: {CORE}:latest\n"),
    "comments between": Case(
        f"services:\n  # core\n  core:\n    # image\n\n    image: {CORE}:latest\n    # end\n\n# end\n"
    ),
    "indented comment under image": Case(
        f"services:\n  core:\n    image: {CORE}:latest\n      # deeper\n    restart: always\n"
    ),
    "tab in a comment": Case(f"services:\n  core:\n\t# tab\n    image: {CORE}:latest\n\t\n    restart: always\t# x\n"),
    "document start": Case(f"---\nservices:\n  core:\n    image: {CORE}:latest\n"),
    "document end": Case(f"---\nservices:\n  core:\n    image: {CORE}:latest\n...\n"),
    "two documents": Case(f"services:\n  core:\n    image: {CORE}:latest\n---\nservices:\n  web:\n    image: nginx\n"),
    "core in two documents": Case(
        f"services:\n  core:\n    image: {CORE}:latest\n---\nservices:\n  core:\n    image: {CORE}:1\n",
        refused="2 services",
    ),
    "flow service": Case(f"services:\n  core: {{image: '{CORE}:latest', restart: always}}\n"),
    "flow service, variable": Case(f'services:\n  core: {{image: "{CORE}:${{TAG:-latest}}"}}\n'),
    "flow file": Case(f'{{"services": {{"core": {{"image": "{CORE}:latest", "volumes": ["a:/b"]}}}}}}\n'),
    "json": Case('{\n  "services": {\n    "core": {\n      "image": "' + CORE + ':latest"\n    }\n  }\n}\n'),
    "duplicate key": Case(
        f"services:\n  core:\n    image: {CORE}:latest\n    image: {CORE}:1\n", refused="lines 3 and 4"
    ),
    "duplicate elsewhere": Case(
        f"services:\n  core:\n    image: {CORE}:latest\n  web:\n    image: a\n    image: b\n", refused="lines 5 and 6"
    ),
    "not yaml": Case(f"services:\n  core:\n    image: {CORE}:latest\n   bad: x\n", refused="line 4"),
    "jinja block": Case(
        f"services:\n  core:\n    image: {CORE}:latest\n{{% if x %}}\n    restart: always\n{{% endif %}}\n",
        refused="line 4",
    ),
    "jinja bare": Case(
        f"services:\n  core:\n    image: {CORE}:latest\n    x: {{{{ y }}}}\n", refused="{{ … }} without quotes"
    ),
    "jinja image without quotes": Case(
        "services:\n  core:\n    image: {{ registry }}/moghtech/komodo-core:1\n", refused="line 3 is a template"
    ),
    "jinja image of a service of Komodo": Case(
        "services:\n  komodo-core:\n    image: '{{ komodo_image }}'\n", refused="another tool"
    ),
    "a database's tag in a variable with a default": Case(
        f"services:\n  mongo:\n    image: mongo:${{KOMODO_MONGO_TAG:-7}}\n  core:\n    image: {CORE}:latest\n"
    ),
    "a database's tag in a variable": Case(
        f"services:\n  mongo:\n    image: mongo:${{KOMODO_MONGO_TAG}}\n  core:\n    image: {CORE}:latest\n"
    ),
    "a whole image in a variable with another default": Case(
        f"services:\n  komodo:\n    image: ${{KOMODO_DB:-mongo:7}}\n  core:\n    image: {CORE}:latest\n"
    ),
    "jinja quoted elsewhere": one(CORE + ":latest", 'environment:\n  KOMODO_HOST: "{{ host }}"\n'),
    "go template in logging": one(CORE + ":latest", 'logging:\n  options:\n    tag: "{{.Name}}"\n'),
    "op references": one(CORE + ":latest", "environment:\n  KOMODO_PASSKEY: op://vault/komodo/passkey\n"),
    "sops": Case(
        f"services:\n  core:\n    image: {CORE}:latest\nsops:\n  mac: ENC[AES256_GCM,data:x]\n", refused="sops"
    ),
    "commented out": Case(
        f"services:\n  db:\n    image: mongo\n#  core:\n#    image: {CORE}:latest\n", refused="line 5"
    ),
    "nothing of komodo": Case("services:\n  db:\n    image: mongo\n", refused="no service in this file"),
    "override file": Case("services:\n  core:\n    environment:\n      A: b\n", refused="no service in this file"),
    "two cores": Case(
        f"services:\n  a:\n    image: {CORE}:latest\n  b:\n    image: {CORE}:latest\n", refused="2 services run"
    ),
    "build": Case("services:\n  komodo-core:\n    build: .\n", refused="Dockerfile"),
    "build and image": Case(f"services:\n  core:\n    build: .\n    image: {CORE}:latest\n", refused="Dockerfile"),
    "built agent next to core": Case(
        f"services:\n  core:\n    image: {CORE}:latest\n  periphery:\n    build:\n      context: ./p\n",
        refused="Dockerfile",
    ),
    # environment
    "first server in a map": one(
        CORE + ":latest",
        "environment:\n  TZ: UTC\n  KOMODO_FIRST_SERVER: https://p:8120 # c\n  KOMODO_HOST: x\n",
        contains=("      # KOMODO_FIRST_SERVER: https://p:8120 # c\n",),
    ),
    "first server in a list": one(
        CORE + ":latest",
        "environment:\n  - KOMODO_FIRST_SERVER=https://p:8120\n  - 'KOMODO_FIRST_SERVER_NAME=Local'\n  - A=b\n",
        contains=("      # - KOMODO_FIRST_SERVER=https", "      # - 'KOMODO_FIRST_SERVER_NAME"),
    ),
    "first server alone": one(
        CORE + ":latest",
        "environment:\n  KOMODO_FIRST_SERVER: https://p:8120\nrestart: always\n",
        contains=("    # environment:\n      # KOMODO",),
    ),
    "first server alone at an anchor": Case(
        f"x-e: &e\n  KOMODO_FIRST_SERVER: x\nservices:\n  core:\n    environment: *e\n    image: {CORE}:latest\n",
        contains=("  KOMODO_FIRST_SERVER: x\n",),
    ),
    "first server by a merge": Case(
        f"x-e: &e\n  KOMODO_FIRST_SERVER: x\nservices:\n  core:\n    image: {CORE}:latest\n    environment:\n"
        "      <<: *e\n      A: b\n",
        contains=("  KOMODO_FIRST_SERVER: x\n",),
    ),
    "timezone pair by a merge": Case(
        f"x-e: &e\n  TZ: UTC\nservices:\n  core:\n    image: {CORE}:latest\n    environment:\n      <<: *e\n"
        "      KOMODO_TIMEZONE: UTC\n",
        refused="two names",
    ),
    "anchor on a line of its own": one(
        CORE + ":latest", "volumes:\n  &v\n  - ./b:/backups\n", refused="more than was planned"
    ),
    "first server in v2": one(
        CORE + ":2.0.0",
        K + "environment:\n  KOMODO_FIRST_SERVER_NAME: Local\n",
        contains=("      KOMODO_FIRST_SERVER_NAME: Local\n",),
    ),
    "first server flow": one(
        CORE + ":latest", "environment: {KOMODO_FIRST_SERVER: x, A: b}\n", contains=("{KOMODO_FIRST",)
    ),
    "timezone pair": one(CORE + ":latest", "environment:\n  TZ: UTC\n  KOMODO_TIMEZONE: UTC\n", refused="two names"),
    "timezone pair in a list": one(
        CORE + ":latest", "environment: [TZ=UTC, KOMODO_TIMEZONE=UTC]\n", refused="two names"
    ),
    "timezone pair over files": one(
        CORE + ":latest",
        "env_file: .env\nenvironment:\n  TZ: UTC\n",
        env={"KOMODO_TIMEZONE": "UTC"},
        refused="two names",
    ),
    "env_file list": one(CORE + ":latest", "env_file:\n  - ./compose.env\n  - path: b.env\n    required: false\n"),
    "depends_on map": one(CORE + ":latest", "depends_on:\n  db:\n    condition: service_healthy\n"),
    "block scalar at the end": one(CORE + ":latest", "command: |\n  core\n  --x\n"),
    # agents
    "two agents distinguished by profiles": Case(
        "services:\n  a:\n    image: ghcr.io/moghtech/komodo-periphery:1\n    profiles: [a]\n"
        "  b:\n    image: ghcr.io/moghtech/komodo-periphery:1\n    profiles: [b, c]\n",
        images=("ghcr.io/moghtech/komodo-periphery:2.3.2", "ghcr.io/moghtech/komodo-periphery:2.3.2"),
    ),
    "two agents of one profile": Case(
        "services:\n  a:\n    image: ghcr.io/moghtech/komodo-periphery:1\n    profiles: [a]\n"
        "  b:\n    image: ghcr.io/moghtech/komodo-periphery:1\n    profiles: [b, a]\n",
        refused="2 services",
    ),
    "two agents, one without a profile": Case(
        "services:\n  a:\n    image: ghcr.io/moghtech/komodo-periphery:1\n    profiles: [a]\n"
        "  b:\n    image: ghcr.io/moghtech/komodo-periphery:1\n",
        refused="2 services",
    ),
    "agent alone": Case(
        "services:\n  periphery:\n    image: ghcr.io/moghtech/komodo-periphery:latest\n    volumes:\n      - /proc:/proc\n",
        images=("ghcr.io/moghtech/komodo-periphery:2.3.2",),
        lines=3,
    ),
    "old agent": Case(
        "services:\n  agent:\n    image: ghcr.io/mbecker20/periphery:latest\n",
        images=("ghcr.io/moghtech/komodo-periphery:2.3.2",),
    ),
    "agent with config path": Case(
        "services:\n  p:\n    image: ghcr.io/moghtech/komodo-periphery:1\n    environment:\n      PERIPHERY_CONFIG_PATH: /x\n",
        refused="PERIPHERY_CONFIG_PATHS",
    ),
    "cli in the same project": Case(
        f"services:\n  core:\n    image: {CORE}:${{T:-latest}}\n  km:\n    image: ghcr.io/moghtech/komodo-cli:${{T:-latest}}\n",
        contains=("komodo-cli:${T:-latest}", "komodo-core:${T:-2.3.2}"),
    ),
}
