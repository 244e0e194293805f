"""Full and read-only disks: shims of the tools that write, which fail below a path from the n-th write on.

A write that fails for lack of space leaves a part of its data behind, as the real one does. Simplified: a rename within
one file system works on a full disk, and the shell's own redirections work unless `builtins` precedes the script.
"""

from __future__ import annotations

import shlex
import shutil
from dataclasses import dataclass
from pathlib import Path

REAL_PATH = "/usr/local/bin:/usr/bin:/bin"
FULL, READ_ONLY = "No space left on device", "Read-only file system"


def real(name: str) -> str:
    """The machine's own tool."""
    return shutil.which(name, path=REAL_PATH) or f"/usr/bin/{name}"


_COMMON = """# in place while the fault {fault} is on
strikes() { # PATH: is this write one that fails?
  case $1/ in {bin}/*) return 1 ;; {prefix}/*) ;; *) return 1 ;; esac
  command printf 'x' >>{count}
  [ "$({wc} -c <{count})" -ge {at} ] || return 1
  command printf '%s %s\\n' "${0##*/}" "$1" >>{log}
}
where() { # FILE: its full path
  case $1 in */*) disk_dir=${1%/*} ;; *) disk_dir=. ;; esac
  disk_dir=$(cd "${disk_dir:-/}" 2>/dev/null && pwd -P) || disk_dir=
  command printf '%s%s' "${disk_dir:+$disk_dir/}" "${1##*/}"
}
out_file() { # sets disk_file: what standard output goes to, when that is a file
  { disk_file=$({readlink} /proc/self/fd/9 || :); } 9>&1
  case $disk_file in /dev/* | pipe:* | socket:* | '') return 1 ;; esac
}
"""
_INTO_LAST = """for last; do :; done
[ ! -d "$last" ] || last=$last/x
if strikes "$(where "$last")"; then
  {left}
  echo "{name}: cannot write '$last': {reason}" >&2
  exit 1
fi
"""
_COPY_LEFT = (
    'for src; do :; done; [ $# -lt 2 ] || { eval "src=\\${$(($# - 1))}"; {head} -c 3 "$src" >"$last" 2>/dev/null; }'
)
_TO_STDOUT = """if out_file && strikes "$disk_file"; then
  {left}
  echo "{name}: write error: {reason}" >&2
  exit 1
fi
"""
_STDOUT_LEFT = '{real} "$@" 2>/dev/null | { {head} -c 3; {cat} >/dev/null; }'
_DD = """disk_file=
for word; do
  case $word in of=*) disk_file=$(where "${word#of=}") ;; esac
done
if { [ -n "$disk_file" ] || out_file; } && strikes "$disk_file"; then
  {left}
  echo "{name}: error writing '$disk_file': {reason}" >&2
  exit 1
fi
"""
_MKDIR = """for last; do :; done
if [ ! -d "$last" ] && strikes "$(where "$last")"; then
  echo "{name}: cannot create directory '$last': {reason}" >&2
  exit 1
fi
"""
_ANY = """for word; do
  case $word in -*) continue ;; esac
  if { [ -e "$word" ] || [ "{name}" != rm ]; } && strikes "$(where "$word")"; then
    echo "{name}: cannot change '$word': {reason}" >&2
    exit 1
  fi
done
"""
_FILTERS = ("cat", "gzip", "head", "tail", "sed", "awk", "tr", "cut", "tar")
_WRITERS = {"cp": _INTO_LAST, "install": _INTO_LAST, "tee": _INTO_LAST, "dd": _DD, "mkdir": _MKDIR, "mkfifo": _MKDIR}
_CHANGERS = ("mv", "rm", "chmod", "touch", "ln", "rmdir")

_BUILTINS = """
. {common}
ku_strikes_here() { out_file && strikes "$disk_file"; }
printf() {
  if ku_strikes_here; then command printf 'x'; echo "printf: I/O error" >&2; return 1; fi
  command printf "$@"
}
echo() {
  if ku_strikes_here; then command printf 'x'; command printf 'echo: I/O error\\n' >&2; return 1; fi
  command echo "$@"
}
"""


@dataclass(frozen=True)
class BadDisk:
    """The shims of one host. `below`: where writes fail; `at`: from which write on."""

    bin: Path
    below: Path
    reason: str = FULL
    at: int = 1

    @property
    def _count(self) -> Path:
        return self.bin / ".disk.count"

    @property
    def _log(self) -> Path:
        return self.bin / ".disk.log"

    @property
    def _common(self) -> Path:
        return self.bin / ".disk.sh"

    def install(self) -> None:
        """Write the shims: the disk is full, or read-only, from now on."""
        self.remove()
        self._common.write_text(self._text(_COMMON, "", ""))
        texts = dict.fromkeys(_FILTERS, _TO_STDOUT) | _WRITERS
        if self.reason == READ_ONLY:
            texts |= dict.fromkeys(_CHANGERS, _ANY)
        for name, text in texts.items():
            shim = self.bin / name
            left = _STDOUT_LEFT if text in (_TO_STDOUT, _DD) else _COPY_LEFT if name == "cp" else ":"
            body = self._text(text, name, ":" if self.reason == READ_ONLY else left)
            shim.write_text(f'#!/bin/sh\n. {self._common}\n{body}exec {real(name)} "$@"\n')
            shim.chmod(0o755)

    def remove(self) -> None:
        """Remove the shims: the disk works again."""
        for name in (*_FILTERS, *_WRITERS, *_CHANGERS):
            (self.bin / name).unlink(missing_ok=True)
        for path in (self._count, self._log, self._common):
            path.unlink(missing_ok=True)

    @property
    def builtins(self) -> str:
        """For the front of a script: its shell's own writes fail, too."""
        return _BUILTINS.replace("{common}", shlex.quote(str(self._common)))

    def struck(self) -> list[str]:
        """The writes that failed so far, as `tool path`."""
        return self._log.read_text().splitlines() if self._log.exists() else []

    def strikes(self, path: Path) -> bool:
        """The same for a stand-in that writes by itself: counts one write."""
        if not path.is_relative_to(self.below) or not self._common.exists():
            return False
        with self._count.open("a") as file:
            file.write("x")
        if self._count.stat().st_size < self.at:
            return False
        with self._log.open("a") as file:
            file.write(f"stand-in {path}\n")
        return True

    def is_bad(self) -> bool:
        """Whether the next write would fail."""
        written = self._count.stat().st_size if self._count.exists() else 0
        return written + 1 >= self.at

    def _text(self, text: str, name: str, left: str) -> str:
        words = {
            "left": left,
            "name": name,
            "reason": self.reason,
            "fault": "disk-full" if self.reason == FULL else "read-only",
            "prefix": shlex.quote(str(self.below)),
            "bin": shlex.quote(str(self.bin)),
            "count": shlex.quote(str(self._count)),
            "log": shlex.quote(str(self._log)),
            "at": str(self.at),
            "real": real(name),
        } | {tool: real(tool) for tool in ("wc", "readlink", "head", "cat")}
        for key, value in words.items():
            text = text.replace("{" + key + "}", value)
        return text
