# shellcheck shell=sh
# params: folder verb dump?
# Runs the restore.sh of the run folder, as an operator would type it. With `dump`: restores that one, into a database
# that the worker has dropped already (which needs no mongosh).
[ -r "$folder/restore.sh" ] || die 1 "$folder/restore.sh is gone"
if [ -n "$dump" ]; then
  KU_DROPPED=yes
  KU_DUMP=$dump
  export KU_DROPPED KU_DUMP
fi
exec sh "$folder/restore.sh" "$verb"
