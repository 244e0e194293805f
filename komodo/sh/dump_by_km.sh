# shellcheck shell=sh
# needs: dumps.sh
# needs: km.sh
# dump_by_km.sh FOLDER LABEL DATABASE IMAGE NETWORK: `km database backup` into one tar file. Standard input is km's
# environment. It is put in place only when km ended well, every file in it is whole, and it holds something.
# (v1.19.5:lib/database/src/utils/backup.rs: one .gz of JSON lines a collection; Stats.gz lies beside the dated folder.)
database=$3
dump_begins "$1" "$2" km.tar
mkdir "$part.d"
code=0
km "$4" "$5" "$part.d" "$part.log" backup || code=$?
dump_full
if [ "$code" -ne 0 ]; then
    km_said "$part.log" >&2
    die 1 "km ended with $code; the unfinished dump was removed"
fi
# A restore calls it an error where this one is missing.
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
dump_ends
printf '%s' "$dumped" | while IFS= read -r line; do say dumped "$line"; done
