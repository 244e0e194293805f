# shellcheck shell=sh
# run_core_restore.sh FOLDER COMMAND [dropped]: the run folder's own restore.sh, as a person would type it. `dropped`: the
# database was dropped by the worker already, which needs no mongosh.
[ -r "$1/restore.sh" ] || die 1 "$1/restore.sh is gone"
KU_DROPPED=no
[ "${3:-}" != dropped ] || KU_DROPPED=yes
export KU_DROPPED
exec sh "$1/restore.sh" "$2"
