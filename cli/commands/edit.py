"""edit: the file edits alone, on local files. Connects to no host."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from cli.options import output_option
from cli.output import bad, careful, data, good, replace_file, say, show_error, strong
from komodo.compose.reference import EXACT
from komodo.files.diff import masked_diff
from komodo.files.edit_set import FileEdit
from komodo.files.grouping import edit_files
from komodo.public_key import validate
from model.errors import EditRefused, KeyRejected, UpgradeError

NOTHING, WRITTEN, REFUSED, CHANGES = 0, 0, 4, 5
_OVERRIDES = [f"{stem}.override.{ending}" for stem in ("compose", "docker-compose") for ending in ("yaml", "yml")]
_READ_AS_WELL = (".env", "compose.env", *_OVERRIDES)


@click.command("edit")
@click.option("--to", "target", required=True, metavar="VERSION", help="The exact version to go to: 2.3.2")
@click.option("--core-public-key", "key", default="", metavar="KEY", help="Core's key: agents are pinned to it.")
@click.option(
    "--pin", type=click.Choice(["inline", "file"]), default="inline", show_default=True,
    help="What agents are pinned to: the key itself, or a file with it, which a rotation of Core's keys replaces.",
)  # fmt: skip
@click.option("--write", is_flag=True, help="Write the files; copies get the upgrade guide's names (NAME.bak_v1).")
@click.argument("files", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False), metavar="FILE...")
@output_option
@click.pass_context
def edit_command(ctx: click.Context, target: str, key: str, pin: str, write: bool, files: tuple[str, ...]) -> None:
    """Show, and with --write make, the edits of an upgrade in compose files, env files and periphery.config.toml.

    Name a compose file and its env file together: variables of one are used in the other. Secrets are masked in the
    diffs. If a file cannot be edited safely, the lines to paste are shown and nothing is written.

    \b
    Examples:
      komodo-upgrade edit --to 2.3.2 compose.yaml .env
      komodo-upgrade edit --to 2.3.2 --core-public-key MCow... --write /etc/komodo/periphery.config.toml

    \b
    Exit codes: 0 nothing to do, or written · 4 refused · 5 changes shown
    """
    target = _exact(target)
    if ctx.get_parameter_source("key") is not click.core.ParameterSource.DEFAULT:
        try:
            key = validate(key)
        except KeyRejected as error:
            show_error(error)
            ctx.exit(REFUSED)
    edits = edit_files(_read(files), target=target, key=key, by_file=pin == "file")
    for forgotten in _not_given(edits):
        say(f"note: Compose also reads {forgotten}; name it in this command, too")
    refused = any(e.refused for e in edits)
    copies = _write(edits) if write and not refused else {}
    code = REFUSED if refused else NOTHING if not any(e.changed for e in edits) else WRITTEN if write else CHANGES
    data(_as_data(edits, copies, target, code), _as_text(edits, copies, write=write, refused=refused))
    ctx.exit(code)


def _exact(target: str) -> str:
    version = target.removeprefix("v")
    if EXACT.fullmatch(version) is None or version.startswith(("0.", "1.")):
        raise click.BadParameter(f"{target!r} is no exact version of 2.0.0 or later, such as 2.3.2", param_hint="--to")
    return version


def _read(files: Sequence[str]) -> list[tuple[str, str]]:
    """Path and text, each file once."""
    found: dict[Path, tuple[str, str]] = {}
    for file in files:
        try:
            found.setdefault(Path(file).resolve(), (file, Path(file).read_bytes().decode()))
        except UnicodeDecodeError as error:
            raise EditRefused(f"{file} is not UTF-8 text", hint="omit it, or save it as UTF-8") from error
        except OSError as error:
            raise UpgradeError(
                f"{file} cannot be read: {error.strerror}", hint="name a file that you may read"
            ) from error
    return list(found.values())


def _not_given(edits: Sequence[FileEdit]) -> list[Path]:
    """Files that Compose reads besides the named ones. Their settings have precedence over those written here."""
    given = {Path(e.path).resolve() for e in edits}
    folders = {Path(e.path).resolve().parent for e in edits if e.kind == "compose" and e.changed}
    found = [folder / name for folder in sorted(folders) for name in _READ_AS_WELL]
    return [p for p in found if p.is_file() and p.resolve() not in given]


# --- writing ----------------------------------------------------------------------------------------------------------


def _write(edits: Sequence[FileEdit]) -> dict[str, str]:
    """Write every copy, then every file. Returns path → its copy."""
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    changed = [e for e in edits if e.changed]
    for edit in changed:
        if Path(edit.path).read_bytes() != edit.before.encode():
            raise UpgradeError(f"{edit.path} was changed meanwhile; nothing was written", hint="repeat the command")
    copies: dict[str, str] = {}
    for edit in changed:
        kept = _keep_copy(Path(edit.path).resolve(), edit.backup_suffix, edit.before.encode(), stamp)
        copies[edit.path] = str(kept)
    for edit in changed:
        replace_file(Path(edit.path).resolve(), edit.after.encode())
    return copies


def _keep_copy(path: Path, suffix: str, content: bytes, stamp: str) -> Path:
    """A copy under the guide's name. If a different copy exists, this one gets a time stamp."""
    copy = path.with_name(path.name + suffix)
    if copy.exists() and copy.read_bytes() != content:
        copy = path.with_name(f"{path.name}{suffix}.{stamp}")
    if not copy.exists():
        replace_file(copy, content, like=path)
    return copy


# --- showing ----------------------------------------------------------------------------------------------------------


def _status(edit: FileEdit, copies: dict[str, str]) -> str:
    if edit.refused is not None:
        return "refused"
    if not edit.changed:
        return "unchanged"
    return "written" if edit.path in copies else "changed"


def _as_data(edits: Sequence[FileEdit], copies: dict[str, str], target: str, code: int) -> dict[str, Any]:
    return {
        "target": target,
        "exit_code": code,
        "files": [
            {
                "path": e.path,
                "kind": e.kind,
                "status": _status(e, copies),
                "diff": masked_diff(e.before, e.after, e.path, e.kind),
                "reasons": list(e.reasons),
                "notes": list(e.notes),
                "refused": e.refused.what if e.refused else "",
                "hint": e.refused.hint if e.refused else "",
                "snippet": e.refused.snippet if e.refused else "",
                "backup": copies.get(e.path, ""),
            }
            for e in edits
        ],
    }


def _as_text(edits: Sequence[FileEdit], copies: dict[str, str], *, write: bool, refused: bool) -> str:
    lines: list[str] = []
    for e in edits:
        status = _status(e, copies)
        colour = {"refused": bad, "unchanged": good, "written": good}.get(status, careful)
        lines += [f"{strong(e.path)}: {colour(status)}"]
        lines += [f"  {reason}" for reason in e.reasons]
        lines += [f"  note: {note}" for note in e.notes]
        if e.path in copies:
            lines.append(f"  backup: {copies[e.path]}")
        if e.refused is not None:
            lines += [f"  {e.refused.what}"]
            lines += [f"  next: {e.refused.hint}"] if e.refused.hint else []
            lines += ["  paste by hand:", *(f"    {x}" for x in e.refused.snippet.splitlines())] * bool(
                e.refused.snippet
            )
        lines += masked_diff(e.before, e.after, e.path, e.kind).splitlines() if e.changed else []
        lines.append("")
    if write and refused and any(e.changed for e in edits):
        lines.append("Nothing was written, because a file was refused. Omit it, or correct it first.")
    return "\n".join(lines).rstrip("\n")
