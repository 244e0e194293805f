# shellcheck shell=sh
# reject_dump.sh PATH [NOTE]…: a dump that turned out to prove nothing is kept, under a name that nothing restores from.
# The notes about it go away.
path=$1
shift
if [ -e "$path" ]; then
    mv "$path" "$path.rejected.$(date -u +%Y%m%dT%H%M%SZ)"
fi
for note in "$@"; do rm -f "$note"; done
