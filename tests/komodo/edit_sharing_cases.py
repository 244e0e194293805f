# ruff: noqa: E501 - a table reads best with a case on a line
"""Compose files whose services share nodes by anchors and merges, or extend each other, and the result of each edit."""

from __future__ import annotations

from tests.komodo.edit_compose_cases import CORE, Case, one

SHARING: dict[str, Case] = {
    "merge": Case(
        f"x-base: &base\n  restart: always\nservices:\n  core:\n    <<: *base\n    image: {CORE}:latest\n", lines=4
    ),
    "merge first": Case(f"x-b: &b\n  image: {CORE}:latest\nservices:\n  core:\n    <<: *b\n    restart: always\n"),
    "merge list": Case(
        f"x-a: &a {{restart: always}}\nx-b: &b {{init: false}}\nservices:\n  core:\n    <<: [*a, *b]\n    image: {CORE}:latest\n"
    ),
    "merge init true": Case(f"x-a: &a\n  init: true\nservices:\n  core:\n    <<: *a\n    image: {CORE}:1\n", lines=3),
    "merged volumes, private": Case(
        f"x-a: &a\n  volumes:\n    - ./b:/backups\nservices:\n  core:\n    <<: *a\n    image: {CORE}:latest\n"
    ),
    "merged volumes, shared": Case(
        f"x-a: &a\n  volumes:\n    - ./b:/b\nservices:\n  web:\n    <<: *a\n    image: nginx\n  core:\n    <<: *a\n"
        f"    image: {CORE}:latest\n",
        refused="shared",
    ),
    "aliased volumes, shared": Case(
        f"services:\n  web:\n    image: nginx\n    volumes: &v\n      - a:/b\n  core:\n    image: {CORE}:latest\n    volumes: *v\n",
        refused="shared",
    ),
    "aliased volumes of both": Case(
        f"services:\n  core:\n    image: {CORE}:latest\n    volumes: &v\n      - a:/b\n  periphery:\n"
        "    image: ghcr.io/moghtech/komodo-periphery:latest\n    volumes: *v\n",
        images=(CORE + ":2.3.2", "ghcr.io/moghtech/komodo-periphery:2.3.2"),
        lines=5,
    ),
    "anchor on the service": Case(
        f"services:\n  core: &core\n    image: {CORE}:latest\n    volumes: &v\n      - a:/b\n"
    ),
    "anchor on the image": Case(f"services:\n  core:\n    image: &i {CORE}:latest\n"),
    "image aliased from x-": Case(f"x-i: &i {CORE}:latest\nservices:\n  core:\n    image: *i\n"),
    "volumes aliased from x-": Case(
        f"x-v: &v\n  # b\n  - a:/b\nservices:\n  core:\n    image: {CORE}:latest\n    volumes: *v\n", lines=3
    ),
    "image tag in x-": Case(
        f"x-v: &v 1.19.5\nservices:\n  core:\n    image: {CORE}:latest\n    labels:\n      v: *v\n"
    ),
    "service by merge of a service": Case(
        f"services:\n  core: &c\n    image: {CORE}:latest\n  core-debug:\n    <<: *c\n    command: sleep\n",
        refused="2 services run",
    ),
    "core taken over by another service": Case(
        f"services:\n  core: &c\n    image: {CORE}:${{TAG}}\n    restart: always\n  web:\n    <<: *c\n    image: nginx\n",
        {"TAG": "latest"},
        refused="shared with other services",
    ),
    "core taken over by its agent": Case(
        f"services:\n  core: &c\n    image: {CORE}:${{TAG}}\n    restart: always\n  p:\n    <<: *c\n"
        "    image: ghcr.io/moghtech/komodo-periphery:${TAG}\n",
        {"TAG": "latest"},
        images=(CORE + ":2.3.2", "ghcr.io/moghtech/komodo-periphery:2.3.2"),
    ),
    "core on target taken over": Case(
        f"services:\n  core: &c\n    image: {CORE}:2.3.2\n  web:\n    <<: *c\n    image: nginx\n",
        refused="they would change too",
    ),
    "a service called sops": Case(f"services:\n  sops:\n    image: machine\n  core:\n    image: {CORE}:latest\n"),
    "double merge": Case(
        f"x-a: &a {{b: c}}\nservices:\n  core:\n    <<: *a\n    <<: *a\n    image: {CORE}:1\n", refused="lines 4 and 5"
    ),
    "recursive anchor": Case(f"services:\n  core: &c\n    image: {CORE}:latest\n    x-self: *c\n", refused="itself"),
    "unknown alias": Case(f"services:\n  core:\n    image: {CORE}:latest\n    labels: *nope\n", refused="line 4"),
    "extends same file": Case(
        f"services:\n  base:\n    image: busybox\n    init: true\n    volumes:\n      - a:/b\n  core:\n    extends: base\n"
        f"    image: {CORE}:latest\n",
        lines=3,
    ),
    "extends elsewhere": one(CORE + ":latest", "extends:\n  file: c.yaml\n  service: base\n", refused="extends"),
    "extends elsewhere, all there": one(
        CORE + ":latest",
        "init: true\nvolumes: ['./keys:/config/keys']\nextends:\n  file: c.yaml\n  service: b\n",
        lines=1,
    ),
}
