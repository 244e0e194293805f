# shellcheck shell=sh
# needs: turn.sh
# start_core.sh FOLDER DIRECTORY SERVICE DATABASE COMPOSE…: `up -d` of Core alone. DATABASE is the container that must
# stay the one it is: a re-created database may come up in another version.
folder=$1
directory=$2
service=$3
database=$4
shift 4
id_of() {
    docker inspect "$1" 2>/dev/null | tr ',' '\n' | sed -n 's/.*"Id": *"\([0-9a-f]*\)".*/\1/p' | head -n 1
}
before=$(id_of "$database")
# From here on the database may hold what v1 cannot read: restore.sh looks for this mark.
: >"$folder/core-v2-started"
rm -f "$folder/database-restored" "$folder/database-replaced" "$folder/rolled-back-at"
fsync_file "$folder"
now=$(date -u +%Y-%m-%dT%H:%M:%SZ)
cd "$directory" || die 1 "there is no $directory"
take_turn "$folder"
"$@" up -d --no-deps "$service" >&2
after=$(id_of "$database")
[ "$before" = "$after" ] || die 1 "the database's container $database was re-created by compose (it must not be)"
say started "$now"
if [ -r "$folder/core-stopped-at" ]; then say stopped "$(cat "$folder/core-stopped-at")"; fi
