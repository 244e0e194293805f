# shellcheck shell=sh
# stop_core.sh FOLDER DIRECTORY SERVICE COMPOSE…: stops Core's service and notes when.
folder=$1
directory=$2
service=$3
shift 3
mkdir -p "$folder"
chmod 700 "$folder"
now=$(date -u +%Y-%m-%dT%H:%M:%SZ)
printf '%s\n' "$now" >"$folder/core-stopped-at"
cd "$directory" || die 1 "there is no $directory"
"$@" stop "$service" >&2
say stopped "$now"
