# shellcheck shell=sh
# needs: lib/compose_lock.sh
# needs: lib/approved_image.sh
# params: folder directory service database image? approved?
# start_core.sh COMPOSE…: `up -d` of Core alone. `database` is the container that compose must not re-create: it might
# then come up in another version.
id_of() {
  docker inspect "$1" 2>/dev/null | tr ',' '\n' | sed -n 's/.*"Id": *"\([0-9a-f]*\)".*/\1/p' | head -n 1
}
before=$(id_of "$database")
use_approved "$image" "$approved"
# From here on the database may hold what v1 cannot read. restore.sh reads this mark.
: >"$folder/core-v2-started"
rm -f "$folder/database-restored" "$folder/database-replaced" "$folder/rolled-back-at"
fsync_file "$folder"
now=$(date -u +%Y-%m-%dT%H:%M:%SZ)
cd "$directory" || die 1 "there is no $directory"
take_compose_lock "$folder"
"$@" up -d --no-deps "$service" >&2
after=$(id_of "$database")
[ "$before" = "$after" ] || die 1 "the database's container $database was re-created by compose, which must not happen"
say started "$now"
if [ -r "$folder/core-stopped-at" ]; then say stopped "$(cat "$folder/core-stopped-at")"; fi
