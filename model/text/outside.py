"""Text from outside (hosts, Core, messages, files) is made safe where it is shown; each output has one function here.

Escaped are characters that change what a reader sees besides the text: C0 and C1 controls (terminal sequences),
bidirectional and zero-width formatting, line separators, surrogates. They appear as \\u escapes, as in JSON.
"""

from __future__ import annotations

import re
from html import escape

_HIDDEN = (
    *range(0x20),
    *range(0x7F, 0xA0),
    0xAD,
    0x61C,
    0x180E,
    *range(0x200B, 0x2010),
    *range(0x2028, 0x202F),
    *range(0x2060, 0x2070),
    *range(0xD800, 0xE000),
    0xFEFF,
    *range(0xFFF9, 0xFFFC),
    *range(0xE0000, 0xE0080),
)


CUT = "…"
"""The end of a text that was too long."""


def _escape(code: int) -> str:
    if code < 0x10000:
        return f"\\u{code:04x}"
    return "".join(f"\\u{half:04x}" for half in (0xD7C0 + (code >> 10), 0xDC00 + (code & 0x3FF)))


_LINE = {code: _escape(code) for code in _HIDDEN}
_LINES = {code: text for code, text in _LINE.items() if code != 0x0A}
_OUR_STYLE = re.compile(r"(\x1b\[(?:0|1|2|31|32|33|36)m)")
"""What click.style writes for the styles of cli/output.py: they colour text and hide none."""
_LINK = re.compile(r"\](?=[(\[:])")
_BLOCK = re.compile(r"^(\s*)(?=[#>|=+*~`-]|\d+[.)])", re.MULTILINE)


def single_line(text: str, limit: int = 0) -> str:
    """One line: a log entry's message, a finding, a subject."""
    return _bounded(text, limit).translate(_LINE)


def multi_line(text: str, limit: int = 0) -> str:
    """Text of several lines: a notification, JSON."""
    return _bounded(text, limit).translate(_LINES)


def terminal(text: str) -> str:
    """For a terminal; our own colours stay."""
    parts = _OUR_STYLE.split(text)
    return "".join(part if place % 2 else part.translate(_LINES) for place, part in enumerate(parts))


def markdown(text: str) -> str:
    """A finished Markdown document: no HTML, no links and images except ours, no hidden characters."""
    return _LINK.sub(r"]\\", text.replace("<", "&lt;")).translate(_LINES)


def paragraph(text: str) -> str:
    """Lines for a Markdown document that begin no heading, list, table or code block."""
    return _BLOCK.sub(r"\1\\", text)


def html(text: str) -> str:
    """Text in an HTML document, or the value of a quoted attribute: no markup, no hidden characters."""
    return escape(text.translate(_LINES), quote=True)


def _bounded(text: str, limit: int) -> str:
    """At most `limit` characters; 0: all."""
    return text if not limit or len(text) <= limit else f"{text[: limit - 1]}{CUT}"
