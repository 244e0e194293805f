# shellcheck shell=sh
# needs: dumps.sh
# dump_database.sh FOLDER LABEL CONTAINER URI DATABASE login|open STALL: mongodump of one database, streamed out of its
# container. URI holds the user at most; standard input is the line `password: …` with `login`. STALL: seconds without
# one more byte after which mongodump hangs, and is ended: Core may be stopped meanwhile.
# A dump is put in place only when mongodump ended well, wrote something, and the archive is whole.
container=$3
uri=$4
database=$5
login=$6
dump_begins "$1" "$2" archive.gz
stall=${7:-300}

# ends_when_it_hangs PID: looks at the dump every second; in the background.
ends_when_it_hangs() {
    grown=
    still=0
    while sleep 1 && kill -0 "$1" 2>/dev/null; do
        size=$(stat -c %s "$part" 2>/dev/null || :)
        still=$((still + 1))
        [ "$size" = "$grown" ] || still=0
        grown=$size
        if [ "$still" -ge "$stall" ]; then
            printf 'stalled\n' >>"$part.log"
            kill "$1" 2>/dev/null || :
            return 0
        fi
    done
}

if [ "$login" = open ]; then exec </dev/null; fi
set -- "--uri=$uri"
[ "$login" = open ] || set -- "$@" --config=/dev/stdin
# In the background, which would take standard input away.
exec 3<&0
docker exec -i "$container" mongodump "$@" "--db=$database" --archive --gzip <&3 >"$part" 2>"$part.log" &
dump_pid=$!
exec 3<&-
ends_when_it_hangs "$dump_pid" >/dev/null 2>&1 &
watcher=$!
code=0
wait "$dump_pid" || code=$?
kill "$watcher" 2>/dev/null || :
if [ "$code" -ne 0 ] && [ "$(tail -n 1 "$part.log")" = stalled ]; then
    die 1 "mongodump hung: for $stall s it wrote nothing, so it was ended; the unfinished dump was removed"
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
