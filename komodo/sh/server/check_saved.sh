# shellcheck shell=sh
# params: folder
# Reports the saved files of a run folder that are not what restore.list says. Reads only.
[ -f "$folder/restore.sh" ] || say broken "$folder/restore.sh"
if [ ! -f "$folder/restore.list" ]; then
  say broken "$folder/restore.list"
  exit 0
fi
grep "^file$tab" "$folder/restore.list" | while IFS="$tab" read -r _ _ digest _ _ name _; do
  [ "$(sha256_of "$folder/files/$name")" = "$digest" ] || say broken "$folder/files/$name"
done
