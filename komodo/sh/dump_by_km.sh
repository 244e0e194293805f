# shellcheck shell=sh
# needs: km.sh
# dump_by_km.sh FOLDER LABEL DATABASE IMAGE NETWORK: `km database backup` into one tar file. Standard input is km's
# environment. It is put in place only when km ended well, every file in it is whole, and it holds something.
# (v1.19.5:lib/database/src/utils/backup.rs: one .gz of JSON lines a collection; Stats.gz lies beside the dated folder.)
folder=$1
label=$2
database=$3
image=$4
network=$5

mkdir -p "$folder/dumps"
chmod 700 "$folder" "$folder/dumps"
path=$folder/dumps/$label.km.tar
number=1
while [ -e "$path" ]; do
    number=$((number + 1))
    path=$folder/dumps/$label.$number.km.tar
done
part=$path.part
trap 'rm -rf "$part" "$part.log" "$part.d"' EXIT
rm -rf "$part.d"
mkdir "$part.d"

began=$(date +%s)
taken=$(date -u +%Y-%m-%dT%H:%M:%SZ)
code=0
km "$image" "$network" "$part.d" "$part.log" backup || code=$?
if grep -qi 'no space left' "$part.log"; then
    die 70 "No space left on device while km wrote to $part.d; the unfinished dump was removed"
fi
if [ "$code" -ne 0 ]; then
    km_said "$part.log" >&2
    die 1 "km ended with $code; the unfinished dump was removed"
fi
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
size=$(stat -c %s "$part")
digest=$(sha256_of "$part")
mv "$part" "$path"
fsync_file "$folder/dumps"
say path "$path"
say bytes "$size"
say sha256 "$digest"
say taken "$taken"
say seconds "$(($(date +%s) - began))"
printf '%s' "$dumped" | while IFS= read -r line; do say dumped "$line"; done
