# shellcheck shell=sh
# keep_note.sh FILE [OBSOLETE]: standard input becomes FILE in the run folder, whole or not at all; OBSOLETE goes away.
mkdir -p "$(dirname "$1")"
cat >"$1.part"
fsync_file "$1.part"
mv -f "$1.part" "$1"
if [ -n "${2:-}" ]; then rm -f "$2"; fi
say sha256 "$(sha256_of "$1")"
