# shellcheck shell=sh
# params: path
# reject_dump.sh [NOTE]…: renames a dump that proves nothing, so that it is kept and never restored. Removes its notes.
if [ -e "$path" ]; then
  mv "$path" "$path.rejected.$(date -u +%Y%m%dT%H%M%SZ)"
fi
for note in "$@"; do rm -f "$note"; done
