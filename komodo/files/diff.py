"""Diffs that may be shown to anyone: values are masked unless they are known to be harmless.

What is not understood is masked: a password in a log cannot be taken back, a masked diff can be read on the host.
"""

from __future__ import annotations

import difflib
import re

from komodo.files.env import FIRST_SERVER
from komodo.public_key import PATTERN, PLACEHOLDER

LIMIT = 8 * 1024
"""Bytes of one diff."""

MASK = "***"

_SHOWN_KEYS = frozenset(
    """
    image init restart container_name hostname version name ports expose networks network_mode depends_on volumes
    env_file environment services logging driver extends file service profiles pull_policy platform privileged pid
    user condition healthcheck interval timeout retries start_period type source target read_only external deploy
    port bind_ip root_directory repo_dir stack_dir build_dir ssl_enabled ssl_key_file ssl_cert_file disable_terminals
    disable_container_exec disable_container_terminals stats_polling_rate container_stats_polling_rate
    legacy_compose_cli include_disk_mounts exclude_disk_mounts allowed_ips logging.level
    logging.stdio pretty_startup_config
    """.split()  # noqa: SIM905 - eighty quoted words are hard to read
)
_KEY_NAMES = ("core_public_keys", "core_public_key", "PERIPHERY_CORE_PUBLIC_KEYS", "PERIPHERY_CORE_PUBLIC_KEY")
_ENV = re.compile(r"^(?P<head>[\s#]*(?:export\s+)?)(?P<name>[A-Za-z_][\w.]*)(?P<sep>\s*=\s*)(?P<value>.*)$")
_YAML = re.compile(
    r"^(?P<head>\s*(?:-\s+)?)(?P<quote>[\"']?)(?P<name>[\w.<-]+)(?P=quote)(?P<sep>\s*[:=]\s*)(?P<value>.*)$"
)
_QUOTED_ITEM = re.compile(
    r"^(?P<head>\s*-\s+)(?P<quote>[\"'])(?P<name>[A-Za-z_]\w*)=(?P<value>[^\"']*)(?P=quote)\s*(?:#.*)?$"
)
_COMMENTED = re.compile(r"^(?P<head>\s*#[\s#]*(?:-\s+)?[\"']?[A-Z][A-Z0-9_]+[\"']?\s*[:=]\s*)\S")
_TOML = re.compile(r"^(?P<head>[\s#]*)(?P<name>[\w.\"-]+)(?P<sep>\s*=\s*)(?P<value>.*)$")
_MOUNT = re.compile(r"^[\"']?(?:[\w.~/-]|\$\{?[\w:/.-]+\}?)+:(?:[\w./-]|\$\{?[\w:/.-]+\}?)+[\"']?$")
_PORTS = re.compile(r"^[\"']?[\d.:\-/a-z]*\d[\d.:\-/tcpu]*[\"']?$")
_REFERENCE = re.compile(r"^[\"']?\$\{?[A-Za-z_]\w*\}?[\"']?$")
_URI_LOGIN = re.compile(r"(?<=://)[^/@\s]+@")
_TELLTALE = re.compile(r"(?i)(?:pass|secret|token|credential|pwd|api.?key)[^:=]{0,24}(?:[:=]|\bis\b)")


def masked_diff(before: str, after: str, path: str, kind: str) -> str:
    """A unified diff of at most 8 KiB; `kind` as `detect.kind_of` returns it.

    Line ends and a byte order mark are not shown. Empty when the texts are equal.
    """
    if before == after:
        return ""
    old, new = before.removeprefix("\ufeff").splitlines(), after.removeprefix("\ufeff").splitlines()
    lines: list[str] = []
    for group in difflib.SequenceMatcher(None, old, new, autojunk=False).get_grouped_opcodes(3):
        lines.append(f"@@ -{_span(group[0][1], group[-1][2])} +{_span(group[0][3], group[-1][4])} @@")
        for tag, i1, i2, j1, j2 in group:
            if tag == "equal":
                lines += [" " + mask(line, kind, changed=False) for line in old[i1:i2]]
                continue
            lines += ["-" + mask(line, kind, changed=True) for line in old[i1:i2]]
            lines += ["+" + mask(line, kind, changed=True) for line in new[j1:j2]]
    return _limited([f"--- {path}", f"+++ {path}", *lines])


def hunks(before: str, after: str, kind: str) -> tuple[str, ...] | None:
    """The hunks of a patch that `git apply --unidiff-zero` takes, without a line that could hold a secret.

    Such a line is left out where it is only context. None: a changed line is one, or the patch would be too long.
    """
    old, new = _git_lines(before), _git_lines(after)
    found: list[str] = []
    for group in difflib.SequenceMatcher(None, old, new, autojunk=False).get_grouped_opcodes(3):
        lines: list[_PatchLine] = []
        for tag, i1, i2, j1, j2 in group:
            if tag == "equal":
                lines += [(" ", old[i], i, j1 + i - i1) for i in range(i1, i2)]
            else:
                lines += [("-", old[i], i, j1) for i in range(i1, i2)]
                lines += [("+", new[j], i2, j) for j in range(j1, j2)]
        for part in _without_secrets(lines, kind):
            if any(mark != " " and not _is_shown(line, kind, changed=True) for mark, line, _, _ in part):
                return None
            found.append(_hunk(part))
    return tuple(found) if sum(map(len, found)) <= LIMIT else None


_PatchLine = tuple[str, str, int, int]
"""Mark, the line with its end, and its place in the old and the new file."""


def _git_lines(text: str) -> list[str]:
    """With their ends; for git a line ends with a line feed only."""
    return [line for line in re.split(r"(?<=\n)", text) if line]


def _is_shown(line: str, kind: str, *, changed: bool) -> bool:
    plain = line.rstrip("\r\n")
    return mask(plain, kind, changed=changed) == plain and MASK not in plain


def _without_secrets(lines: list[_PatchLine], kind: str) -> list[list[_PatchLine]]:
    """Parts between the lines of context that could hold a secret; parts without a change are left out."""
    parts: list[list[_PatchLine]] = [[]]
    for line in lines:
        if line[0] == " " and not _is_shown(line[1], kind, changed=False):
            parts.append([])
        else:
            parts[-1].append(line)
    return [part for part in parts if any(mark != " " for mark, *_ in part)]


def _hunk(part: list[_PatchLine]) -> str:
    olds, news = ([line for line in part if line[0] in marks] for marks in (" -", " +"))
    head = f"@@ -{_span(part[0][2], part[0][2] + len(olds))} +{_span(part[0][3], part[0][3] + len(news))} @@\n"
    ends = (line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for _, line, _, _ in part)
    return head + "".join(mark + end for (mark, *_), end in zip(part, ends, strict=True))


def _span(start: int, end: int) -> str:
    return f"{start + 1 if end > start else start},{end - start}"


def _limited(lines: list[str]) -> str:
    kept: list[str] = []
    size = 0
    for i, line in enumerate(lines):
        size += len(line.encode()) + 1
        if size > LIMIT - 64:
            return "\n".join([*kept, f"… {len(lines) - i} more lines"]) + "\n"
        kept.append(line)
    return "\n".join(kept) + "\n"


def mask(line: str, kind: str, *, changed: bool) -> str:
    """One line, masked where it could hold a secret."""
    plain = line.rstrip("\r")
    if not plain.strip() or plain.strip() in ("[", "]", "{", "}", "],", "---", "..."):
        return plain
    if kind == "env":
        return _mask_env(plain, changed)
    return _mask_toml(plain) if kind in ("periphery-config", "core-config") else _mask_yaml(plain, changed)


def _mask_env(line: str, changed: bool) -> str:
    found = _ENV.match(line)
    if found is None:
        return _mask_comment(line)
    value = found["value"]
    shown = changed or found["name"] in FIRST_SERVER or not value or _REFERENCE.match(value)
    return f"{found['head']}{found['name']}{found['sep']}{_uri(value) if shown else MASK}"


def _mask_toml(line: str) -> str:
    if re.match(r"^\s*\[[\w.\"\s\[\]-]+\]\s*(?:#.*)?$", line):
        return line
    found = _TOML.match(line)
    if found is None:
        return _mask_comment(line)
    name, value = found["name"], found["value"]
    if name in _KEY_NAMES:
        value = _only_keys(value)
    elif name not in _SHOWN_KEYS and value.strip() not in ("[]", '""', "true", "false"):
        value = MASK
    return f"{found['head']}{name}{found['sep']}{value}"


def _only_keys(value: str) -> str:
    """Quoted entries that are keys, references to files, or the placeholder stay; anything else could be a secret."""

    def entry(match: re.Match[str]) -> str:
        inner = match.group()
        known = all(
            PATTERN.fullmatch(e.strip()) or e.strip() in ("", PLACEHOLDER) or e.strip().startswith("file:")
            for e in inner.split(",")
        )
        return inner if known else MASK

    masked = re.sub(r"(?<=[\"'])[^\"'\[\]]*(?=[\"'])", entry, value)
    return masked if re.match(r"^\s*[\[\"']", value) else _bare_key(value)


def _bare_key(value: str) -> str:
    """A bare value: shown when it is a key."""
    return value if PATTERN.fullmatch(value.strip()) or not value.strip() else MASK


def _mask_yaml(line: str, changed: bool) -> str:
    body = line.strip()
    if body.startswith("#"):
        return _mask_comment(line)
    item = re.match(r"^([\s#]*-\s+)(.*)$", line)
    text = item[2].strip() if item else body
    if item and (_MOUNT.match(_without_comment(text)) or _PORTS.match(_without_comment(text))):
        return line
    if quoted := _QUOTED_ITEM.match(line):
        return _mask_quoted_item(quoted)
    found = _YAML.match(line)
    if found is None:
        if item:
            return f"{item[1]}{text if re.fullmatch(r'[a-z][a-z0-9_-]{0,24}', text) and changed else MASK}"
        return _mask_comment(line)
    return _mask_yaml_pair(line, found)


def _mask_yaml_pair(line: str, found: re.Match[str]) -> str:
    name, value = found["name"], found["value"]
    head = f"{found['head']}{found['quote']}{name}{found['quote']}{found['sep']}"
    plain = _without_comment(value)
    if not plain or plain in ("true", "false") or plain.startswith(("&", "*")) or _REFERENCE.match(plain):
        return line
    if name in _KEY_NAMES:
        return head + (plain if PATTERN.search(plain) or PLACEHOLDER in plain else MASK)
    if name.upper() in FIRST_SERVER:
        return head + _uri(value)
    if name in _SHOWN_KEYS:
        return head + _uri(value)
    return head + MASK


def _mask_quoted_item(found: re.Match[str]) -> str:
    """`- "NAME=value"` in an environment that is a list: the name is shown as in `- NAME=value`."""
    pair = _YAML.match(f"{found['name']}={found['value']}")
    inner = _mask_yaml_pair(pair[0], pair) if pair else MASK
    return f"{found['head']}{found['quote']}{inner}{found['quote']}"


def _without_comment(value: str) -> str:
    return re.sub(r"(?:^|\s+)#.*$", "", value).strip()


def _mask_comment(line: str) -> str:
    """Prose is shown. Text after "password:" and the like, and what is neither prose nor structure, is masked."""
    if not line.lstrip().startswith("#"):
        return re.sub(r"\S.*", MASK, line, count=1)
    assigned, found = _COMMENTED.match(line), _TELLTALE.search(line)
    if assigned is not None and assigned["head"].strip("#- \t:=\"'") not in FIRST_SERVER:
        return assigned["head"] + MASK
    return _uri(line) if found is None or not line[found.end() :].strip() else f"{line[: found.end()]} {MASK}"


def _uri(text: str) -> str:
    return _URI_LOGIN.sub(f"{MASK}@", text)
