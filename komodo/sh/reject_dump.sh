# shellcheck shell=sh
# reject_dump.sh PATH: a dump that turned out to prove nothing is kept, under a name that nothing restores from.
if [ -e "$1" ]; then
    mv "$1" "$1.rejected.$(date -u +%Y%m%dT%H%M%SZ)"
fi
