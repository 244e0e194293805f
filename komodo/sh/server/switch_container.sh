# shellcheck shell=sh
# needs: lib/files.sh
# needs: lib/input_parts.sh
# needs: lib/arming.sh
# needs: lib/approved_image.sh
# params: mark directory service container auto_rollback image approved?
# switch_container.sh [part BYTES DEST BASE_SHA RESULT_SHA]… compose COMPOSE…: writes the edited files (standard input),
# then lets compose re-create the agent's service: a restart alone would keep the old image. Says when it began.
folder=${mark%/*}
mkdir -p "$folder/staged"
arm "$auto_rollback"
take_parts "$folder"
# From here on this folder has something to restore (again).
[ ! -e "$folder/restored-at" ] || rm -f -- "$folder/restored-at"
if [ ! -s "$mark" ]; then
  docker inspect -f '{{.Id}}' "$container" >"$mark" 2>/dev/null || {
    rm -f -- "$mark"
    die 1 "the container $container is gone, or $mark could not be written; nothing was switched"
  }
  fsync_file "$mark"
fi
while [ "${1:-}" = part ]; do
  next_part "$2" "$folder/staged/final"
  replace_file "$folder/staged/final" "$3" "$4" "$5"
  rm -f -- "$folder/staged/final"
  say written "$3"
  shift 5
done
end_parts
use_approved "$image" "$approved"
[ "${1:-}" = compose ] || die 74 "switch_container.sh: the compose command is missing"
shift
cd "$directory" || die 1 "there is no $directory"
# Tenths of a second where date knows them: the downtime is counted from here.
now=$(date -u +%Y-%m-%dT%H:%M:%S.%N)
case $now in *[!0-9T:.-]*) now=$(date -u +%Y-%m-%dT%H:%M:%S) ;; esac
"$@" up -d --no-deps "$service" >&2
say started "${now}Z"
