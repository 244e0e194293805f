# shellcheck shell=sh
# needs: lib/new_dump.sh
# needs: lib/km.sh
# params: folder label database image network
# `km database backup` into one tar file. Standard input is km's environment. The dump is put in place only if km
# succeeded, every file in it is complete, and it holds a document.
# (v1.19.5:lib/database/src/utils/backup.rs: one .gz of JSON lines a collection; Stats.gz is next to the dated folder.)
begin_dump km.tar
mkdir "$part.d"
code=0
km "$image" "$network" "$part.d" "$part.log" backup || code=$?
check_dump_space
if [ "$code" -ne 0 ]; then
  km_output "$part.log" >&2
  die 1 "km ended with $code; the unfinished dump was removed"
fi
# A restore fails without this file.
[ -e "$part.d/Stats.gz" ] || gzip -c </dev/null >"$part.d/Stats.gz"
dumped=
for file in "$part.d"/*.gz "$part.d"/*/*.gz; do
  [ -e "$file" ] || continue
  gzip -t "$file" 2>/dev/null || die 65 "truncated: ${file##*/} is cut off or damaged (gzip -t)"
  name=${file##*/}
  dumped="$dumped$database.${name%.gz} ($(gzip -dc "$file" | wc -l | tr -d ' ') documents)
"
done
case $dumped in
  *' ('[1-9]*) ;;
  *) die 65 "km found no document in the database '$database' and wrote an empty backup" ;;
esac
tar -C "$part.d" -cf "$part" .
fsync_file "$part"
end_dump
printf '%s' "$dumped" | while IFS= read -r line; do say dumped "$line"; done
