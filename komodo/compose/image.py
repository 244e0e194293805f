"""The image of one service: from what is written to exactly the target, through the variables in it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from komodo.compose.interpolation import Variable, resolve
from komodo.compose.reference import (
    Image,
    current_name,
    for_target,
    is_newer,
    komodo_kind,
    parse,
    sole_variable,
    version_of,
)
from model.errors import EditRefused


@dataclass(frozen=True, slots=True, kw_only=True)
class ImagePlan:
    """The new text of an image line, and what the environment has to hold for it to mean the target."""

    raw: str
    env: Mapping[str, str]
    """Variables whose value in the env file has to become this."""
    variables: tuple[str, ...]
    """Variables that hold the tag (or the whole image), whether or not they have to change."""
    before: str
    """What the line means today: ghcr.io/moghtech/komodo-core:latest"""
    after: str
    reasons: tuple[str, ...]

    @property
    def tag_before(self) -> str:
        """As it is today: "latest", "1.19.5", "2"; empty for a digest alone."""
        return parse(self.before).tag

    @property
    def from_v1(self) -> bool:
        """Whether the line means v1 today. `latest`, a digest without a tag, and an unknown tag do."""
        return version_of(parse(self.before).tag)[:1] < (2,)


def plan_image(raw: str, env: Mapping[str, str], target: str, *, elsewhere: Collection[str], snippet: str) -> ImagePlan:
    """How the line becomes the target. `elsewhere` are variables that other services use, which must keep their value.

    Raises EditRefused for a step back, for a template's value, and where no variable decides.
    """
    before = resolve(raw, env)
    if "{{" in raw or "{{" in before or "://" in before:
        raise EditRefused("the image is filled in by another tool (a template or a secret store)", snippet=snippet)
    tag = parse(before).tag
    if is_newer(tag, target):
        raise EditRefused(
            f"the image is {tag} already: {target} would be a step back", snippet="", hint="ask for a newer target"
        )
    new_raw, variables, new_env = _rewrite(raw, env, target, elsewhere, snippet)
    changed = {name: value for name, value in new_env.items() if env.get(name) != value}
    after = resolve(new_raw, {**env, **new_env})
    wanted = for_target(before, target)
    if after != wanted:
        raise EditRefused(f"the image cannot be brought to {wanted} with certainty: {raw}", snippet=snippet)
    return ImagePlan(
        raw=new_raw, env=changed, variables=variables, before=before, after=after,
        reasons=_reasons(raw, new_raw, before, after, env),
    )  # fmt: skip


def _rewrite(
    raw: str, env: Mapping[str, str], target: str, elsewhere: Collection[str], snippet: str
) -> tuple[str, tuple[str, ...], dict[str, str]]:
    whole = sole_variable(raw)
    if whole is not None:
        return _rewrite_whole(whole, env, target, elsewhere, snippet)
    image, resolved = parse(raw), parse(resolve(raw, env))
    name = current_name(image.name)
    if name == image.name and current_name(resolved.name) != resolved.name:
        raise EditRefused(
            f"the image's old name {resolved.name} is hidden in a variable", snippet=snippet,
            hint=f"replace it by {current_name(resolved.name)} where it is set, then try again",
        )  # fmt: skip
    suffix, variables, new_env = _suffix(image, resolved, env, target, elsewhere)
    return name + suffix, variables, new_env


def _rewrite_whole(
    whole: Variable, env: Mapping[str, str], target: str, elsewhere: Collection[str], snippet: str
) -> tuple[str, tuple[str, ...], dict[str, str]]:
    if whole.name in elsewhere:
        raise EditRefused(f"{whole.name} is used by other services too", snippet=snippet)
    argument = whole.argument
    variables: tuple[str, ...] = (whole.name,)
    new_env: dict[str, str] = {}
    if whole.has_default and komodo_kind(resolve(argument, env)) is not None:
        argument, more, new_env = _rewrite(argument, env, target, elsewhere, snippet)
        variables += more
    if whole.is_set(env):
        new_env = {**new_env, whole.name: for_target(env[whole.name], target)}
    return _written(whole, argument), variables, new_env


def _suffix(
    image: Image,
    resolved: Image,
    env: Mapping[str, str],
    target: str,
    elsewhere: Collection[str],
) -> tuple[str, tuple[str, ...], dict[str, str]]:
    literal = f":{target}"
    digest = f"@{image.digest}" if image.digest and resolved.tag == target else ""
    v = image.variable
    if v is None or v.operator in (":+", "+") or v.name in elsewhere:
        # a tag of several parts, or a variable that other images need as it is: the version itself is the safe text
        return literal + digest, (), {}
    if v.is_set(env):
        value = env[v.name]
        kept = value if value == target or value.startswith(f"{target}@") else target
        tag = _written(v, target) if v.has_default and _may_run_v1(resolve(v.argument, env)) else image.tag
        return f":{tag}{digest}", (v.name,), {v.name: kept}
    if v.has_default:
        return f":{_written(v, target)}{digest}", (v.name,), {}
    if v.operator:
        raise EditRefused(
            f"the image's tag is ${{{v.name}{v.operator}…}}, and {v.name} is not set in what was given",
            snippet=f"{v.name}={target}",
            hint=f"give the env file that sets {v.name} together with this file",
        )
    return f":${{{v.name}:-{target}}}", (v.name,), {}


def _may_run_v1(default: str) -> bool:
    """Whether a default that the env file replaces today would start v1 without it."""
    return version_of(default)[:1] < (2,)


def _written(v: Variable, argument: str) -> str:
    return f"${{{v.name}{v.operator}{argument}}}" if v.operator else f"${{{v.name}}}"


def _reasons(raw: str, new_raw: str, before: str, after: str, env: Mapping[str, str]) -> tuple[str, ...]:
    if raw == new_raw:
        return ()
    old, new = parse(before), parse(after)
    parts = [f"image {before if old.tag or old.digest or '$' not in raw else raw} → {after}"]
    if before == after:
        parts = [f"image's default → {new.tag}, so that it holds without the env file too"]
    elif old.name != new.name:
        parts.append("the old name gets no versions after 1.16.12")
    if old.digest and not new.digest:
        parts.append("the digest held the old version")
    if old.tag.startswith("latest"):
        parts.append("latest is frozen at v1")
    unset = [v for v in (parse(new_raw).variable, sole_variable(new_raw)) if v is not None and v.name not in env]
    if unset:
        parts.append(f"{unset[0].name} is not set in what was given; where it is set, that value takes precedence")
    return ("; ".join(parts),)
