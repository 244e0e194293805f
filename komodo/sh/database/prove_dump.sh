# shellcheck shell=sh
# params: archive container uri database scratch login
# Restores a dump under another database name (`scratch`), next to the database that it was taken from. `uri` holds the
# user at most; with `login` = login standard input is the line `password: …`, else `login` is open.
# Exit codes of its own: 65 the archive proves nothing, for the printed reason; 66 the login may not do this.
[ -e "$archive" ] || die 65 "gone: $archive does not exist"
if ! gzip -t "$archive" 2>/dev/null; then die 65 "truncated: $archive is cut off or damaged (gzip -t)"; fi
inside=/tmp/komodo-upgrade-proof.archive.gz
log=$archive.proof.log
trap 'rm -f "$log"; docker exec "$container" rm -f "$inside" >/dev/null 2>&1 || :' EXIT
docker cp "$archive" "$container:$inside"
# Without --nsInclude an archive of another database would be restored over that one.
set -- "--uri=$uri" "--archive=$inside" --gzip "--nsInclude=$database.*" "--nsFrom=$database.*" "--nsTo=$scratch.*"
code=0
if [ "$login" = login ]; then
  docker exec -i "$container" mongorestore --config=/dev/stdin "$@" >"$log" 2>&1 || code=$?
else
  docker exec -i "$container" mongorestore "$@" </dev/null >"$log" 2>&1 || code=$?
fi
output=$(sed 's#://[^@/ ]*@#://***@#g' "$log" | tail -n 4)
if grep -qi 'no space left' "$log"; then
  die 70 "No space left on device while $archive was restored into the scratch database $scratch"
fi
if grep -qi 'unauthorized\|not authorized' "$log"; then die 66 "$output"; fi
if [ "$code" -ne 0 ]; then
  if grep -qi 'corruption\|archive io error\|EOF\|does not appear to be' "$log"; then
    die 65 "truncated: mongorestore ended with $code: $output"
  fi
  die 1 "mongorestore ended with $code: $output"
fi
case $output in
  "0 document(s) restored"* | *[!0-9]"0 document(s) restored"*)
    die 65 "wrong database: the archive holds no document of the database '$database'"
    ;;
esac
say restored "$(grep -c 'finished restoring' "$log" || :)"
