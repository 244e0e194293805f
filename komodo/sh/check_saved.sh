# shellcheck shell=sh
# check_saved.sh FOLDER: are the saved files still what restore.list says? Changes nothing.
folder=$1
[ -f "$folder/restore.sh" ] || say broken "$folder/restore.sh"
if [ ! -f "$folder/restore.list" ]; then
  say broken "$folder/restore.list"
  exit 0
fi
grep "^file$tab" "$folder/restore.list" | while IFS="$tab" read -r _ _ digest _ _ name _; do
  [ "$(sha256_of "$folder/files/$name")" = "$digest" ] || say broken "$folder/files/$name"
done
