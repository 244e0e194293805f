# shellcheck shell=sh
# prove_dump.sh FOLDER ARCHIVE CONTAINER URI DATABASE SCRATCH login|open: a dump restored beside the database it was taken
# from, under another name. URI holds the user at most; standard input is the line `password: …` with `login`.
# Exit code 65: the archive proves nothing, for the reason told; 66: the login may not do this.
archive=$2
container=$3
uri=$4
database=$5
scratch=$6
login=$7

[ -e "$archive" ] || die 65 "gone: there is no $archive (any more)"
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
said=$(sed 's#://[^@/ ]*@#://***@#g' "$log" | tail -n 4)
if grep -qi 'no space left' "$log"; then
    die 70 "No space left on device while $archive was restored into the scratch database $scratch"
fi
if grep -qi 'unauthorized\|not authorized' "$log"; then die 66 "$said"; fi
if [ "$code" -ne 0 ]; then
    if grep -qi 'corruption\|archive io error\|EOF\|does not appear to be' "$log"; then
        die 65 "truncated: mongorestore ended with $code: $said"
    fi
    die 1 "mongorestore ended with $code: $said"
fi
case $said in
"0 document(s) restored"* | *[!0-9]"0 document(s) restored"*)
    die 65 "wrong database: the archive holds no document of the database '$database'"
    ;;
esac
say restored "$(grep -c 'finished restoring' "$log" || :)"
