"""Image references of Komodo, as compose files have them.

Names: `ghcr.io/moghtech/komodo-core` and `-periphery` since v1.17.0, `ghcr.io/mbecker20/komodo` and `/periphery` before
(compose/*.compose.yaml of v1.15.0 and v1.17.5), `ghcr.io/moghtech/komodo` and `/periphery` in v1.17.0-dev. `latest` is
frozen at v1; v2 has `2`, `2.3`, `2.3.2`, without a `v` (upgrade guide, "Upgrading to Komodo v2").
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from komodo.compose.interpolation import Variable, variables

Kind = Literal["core", "periphery"]

NEW_NAMES: Mapping[Kind, str] = {"core": "moghtech/komodo-core", "periphery": "moghtech/komodo-periphery"}
OLD_NAMES: Mapping[Kind, tuple[str, ...]] = {
    "core": ("mbecker20/komodo", "moghtech/komodo"),
    "periphery": ("mbecker20/periphery", "moghtech/periphery"),
}
_NAME = r"(?:moghtech/komodo-core|moghtech/komodo-periphery|(?:mbecker20|moghtech)/(?:komodo|periphery))"
_OFFICIAL = re.compile(rf"(?:^|/)({_NAME})$")
_MENTION = re.compile(
    rf"(?<![\w.-])(?:[\w.-]+(?::\d+)?/)*(?:moghtech/komodo-(?:core|periphery)\b(?!-)|ghcr\.io/{_NAME}(?![\w/.-]))[\w:.@-]*"
)
_ALIKE = re.compile(r"(?:^|/)(?:komodo-core|komodo-periphery)$")
_VERSION = re.compile(r"v?(\d{1,4})(?:\.(\d{1,5}))?(?:\.(\d{1,5}))?(?:[-+].*)?")
EXACT = re.compile(r"(\d{1,4})\.(\d{1,5})\.(\d{1,5})")
"""An exact version, the only form a target may have."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """A reference, split at its outermost level: `${VAR:-a:b}` is never torn apart."""

    name: str
    """Registry and repository, variables included: ghcr.io/moghtech/komodo-core"""
    tag: str = ""
    digest: str = ""
    """sha256:…"""

    @property
    def registry(self) -> str:
        """The host part, or empty: `ghcr.io`, `localhost:5000`, `${REGISTRY}`."""
        head, slash, _ = self.name.partition("/")
        return head if slash and ("." in head or ":" in head or "$" in head or head == "localhost") else ""

    @property
    def repository(self) -> str:
        """All behind the registry."""
        return self.name[len(self.registry) + 1 :] if self.registry else self.name

    @property
    def variable(self) -> Variable | None:
        """The tag's variable, when the tag is one variable and nothing else."""
        return sole_variable(self.tag)


def sole_variable(text: str) -> Variable | None:
    """The variable that makes up the whole text, if one does."""
    found = list(variables(text))
    if len(found) == 1 and found[0].start == 0 and found[0].end == len(text):
        return found[0]
    return None


def parse(ref: str) -> Image:
    """Split a reference. Works on the raw text with its variables and on the resolved one alike."""
    flat = list(ref)
    for v in variables(ref):
        flat[v.start : v.end] = "$" * (v.end - v.start)
    plain = "".join(flat)
    at = plain.find("@")
    end = len(ref) if at == -1 else at
    colon = plain.rfind(":", plain.rfind("/", 0, end) + 1, end)
    return Image(
        name=ref[: end if colon == -1 else colon],
        tag="" if colon == -1 else ref[colon + 1 : end],
        digest="" if at == -1 else ref[at + 1 :],
    )


def komodo_kind(ref: str) -> Kind | None:
    """Which of Komodo's two images this is, under its present or an old name, in any registry or mirror."""
    found = _OFFICIAL.search(parse(ref.strip()).name)
    if found is None:
        return None
    return "core" if found[1] in (NEW_NAMES["core"], *OLD_NAMES["core"]) else "periphery"


def mentions(text: str) -> list[tuple[int, str]]:
    """Lines of any text that name one of Komodo's images: (line, reference)."""
    lines = enumerate(text.splitlines(), 1)
    return [(number, found[0]) for number, line in lines for found in _MENTION.finditer(line)]


def looks_like_komodo(ref: str) -> bool:
    """An image with Komodo's name under another owner: a build of someone else, of which nothing is known."""
    return komodo_kind(ref) is None and _ALIKE.search(parse(ref.strip()).name) is not None


def current_name(name: str) -> str:
    """The same name with the old owner replaced: mbecker20/komodo is moghtech/komodo-core since v1.17.0."""
    kind = komodo_kind(name)
    for old in OLD_NAMES[kind] if kind else ():
        if kind and (name == old or name.endswith("/" + old)):
            return name[: len(name) - len(old)] + NEW_NAMES[kind]
    return name


def for_target(ref: str, target: str) -> str:
    """The same image in the target version: present name, exact tag, and no digest of the old version."""
    image = parse(ref.strip())
    if image.tag == target and image.digest:
        return f"{current_name(image.name)}:{target}@{image.digest}"
    return f"{current_name(image.name)}:{target}"


def version_of(tag: str) -> tuple[int, ...]:
    """The numbers a tag holds: () for `latest` and other words, (2,) for a moving tag, (1, 19, 5) for an exact one."""
    found = _VERSION.fullmatch(tag)
    return tuple(int(part) for part in found.groups() if part is not None) if found else ()


def is_newer(tag: str, target: str) -> bool:
    """Whether a tag names something newer than the target for certain: the target would be a downgrade."""
    have, want = version_of(tag), version_of(target)
    return have > want[: len(have)]
