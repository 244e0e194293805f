# shellcheck shell=sh
# needs: dumps.sh
# dump_database.sh FOLDER LABEL CONTAINER URI DATABASE login|open: mongodump of one database, streamed out of its
# container. URI holds the user at most; standard input is the line `password: …` when the last word is `login`.
# A dump is put in place only when mongodump ended well, wrote something, and the archive is whole.
container=$3
uri=$4
database=$5
login=$6
dump_begins "$1" "$2" archive.gz
code=0
if [ "$login" = login ]; then
    docker exec -i "$container" mongodump "--uri=$uri" --config=/dev/stdin "--db=$database" --archive --gzip \
        >"$part" 2>"$part.log" || code=$?
else
    docker exec -i "$container" mongodump "--uri=$uri" "--db=$database" --archive --gzip \
        </dev/null >"$part" 2>"$part.log" || code=$?
fi
dump_full
if [ "$code" -ne 0 ]; then
    sed 's#://[^@/ ]*@#://***@#g' "$part.log" | tail -n 5 >&2
    die 1 "mongodump ended with $code; the unfinished dump was removed"
fi
dumped=$(sed -n 's/.*done dumping //p' "$part.log")
case $dumped in
*"$database."*) ;;
*) die 65 "mongodump found no collection in the database '$database' and wrote an empty archive" ;;
esac
fsync_file "$part"
if ! gzip -t "$part" 2>/dev/null; then
    free=$(df -Pk "$dumps" | awk 'NR == 2 { print $4 }')
    [ "$free" -gt 1024 ] || die 70 "No space left on device for the dump in $dumps; it was removed"
    die 65 "the archive is cut off or damaged (gzip -t)"
fi
dump_ends
say dumped "$dumped"
