# shellcheck shell=sh
# params: folder directory service
# stop_core.sh COMPOSE…: stops Core's service and records when.
mkdir -p "$folder"
chmod 700 "$folder"
now=$(date -u +%Y-%m-%dT%H:%M:%SZ)
printf '%s\n' "$now" >"$folder/core-stopped-at"
cd "$directory" || die 1 "there is no $directory"
"$@" stop "$service" >&2
say stopped "$now"
