"""Templates. Every value that a template prints passes `outside.html`, unless it was already made safe here."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from functools import cache
from importlib.resources import files

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from model.serialization import moment, span
from model.text import outside

_STYLED = re.compile(r"`([^`]+)`|\*\*([^*`]+)\*\*")


def page(template: str, **values: object) -> str:
    """A whole document, or one part of it."""
    return _environment().get_template(template).render(**values)


@cache
def asset(name: str) -> str:
    """A file of the folder `static`."""
    return files("web").joinpath("static", name).read_text(encoding="utf-8")


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("web"),
        autoescape=True,
        finalize=_safe,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"styled": _styled, "moment": _moment, "clock": _clock, "span": span, "word": _word}
    environment.filters["seconds"] = lambda count: span(timedelta(seconds=count))
    environment.globals["now_iso"] = lambda: datetime.now(UTC).isoformat()
    return environment


def _safe(value: object) -> Markup:
    if isinstance(value, Markup):
        return value
    return Markup(outside.html("" if value is None else str(value)))  # noqa: S704 - this is where it is made safe


def _styled(text: str) -> Markup:
    """Our own marks in a line: `code` and **strong**; what they enclose is text like any other."""
    parts, end = [], 0
    for found in _STYLED.finditer(text):
        code, strong = found.groups()
        inner = Markup("<code>{}</code>") if code else Markup("<strong>{}</strong>")
        parts += [_safe(text[end : found.start()]), inner.format(_safe(code or strong))]
        end = found.end()
    return Markup("").join([*parts, _safe(text[end:])])


def _moment(when: datetime) -> Markup:
    return Markup('<time datetime="{}">{}</time>').format(when.isoformat(), moment(when))


def _clock(when: datetime) -> Markup:
    return Markup('<time datetime="{}" title="{}">{:%H:%M:%S}</time>').format(
        when.isoformat(), moment(when), when.astimezone(UTC)
    )


def _word(text: str) -> str:
    """A name for a CSS class: "left on v1" becomes "left-on-v1"."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
