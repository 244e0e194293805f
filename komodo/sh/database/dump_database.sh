# shellcheck shell=sh
# needs: lib/new_dump.sh
# params: folder label container uri database login stall?
# mongodump of one database, streamed out of its container. `uri` holds the user at most; with `login` = login standard
# input is the line `password: …`, else `login` is open. mongodump is ended if it writes nothing for `stall` seconds:
# Core may be stopped meanwhile.
# The dump is put in place only if mongodump succeeded, wrote something, and the archive is complete.
begin_dump archive.gz
stall=${stall:-300}

# end_if_it_hangs PID: checks the size of the dump every second; runs in the background.
end_if_it_hangs() {
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
# A process in the background would get no standard input.
exec 3<&0
docker exec -i "$container" mongodump "$@" "--db=$database" --archive --gzip <&3 >"$part" 2>"$part.log" &
dump_pid=$!
exec 3<&-
end_if_it_hangs "$dump_pid" >/dev/null 2>&1 &
watcher=$!
code=0
wait "$dump_pid" || code=$?
kill "$watcher" 2>/dev/null || :
if [ "$code" -ne 0 ] && [ "$(tail -n 1 "$part.log")" = stalled ]; then
  die 1 "mongodump wrote nothing for $stall s and was ended; the unfinished dump was removed"
fi
check_dump_space
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
end_dump
say dumped "$dumped"
