# shellcheck shell=sh
# run_core_restore.sh FOLDER COMMAND [DUMP]: the run folder's own restore.sh, as a person would type it. With DUMP: that
# one is restored, into a database that the worker has dropped already (which needs no mongosh).
[ -r "$1/restore.sh" ] || die 1 "$1/restore.sh is gone"
if [ -n "${3:-}" ]; then
    KU_DROPPED=yes
    KU_DUMP=$3
    export KU_DROPPED KU_DUMP
fi
exec sh "$1/restore.sh" "$2"
