# shellcheck shell=sh
# needs: parts.sh
# needs: turn.sh
# switch_core_agent.sh FOLDER DIRECTORY SERVICE DEST BASE_SHA RESULT_SHA BYTES COMPOSE…: the compose file with Core's key
# (standard input) in place, then the project's periphery re-created. BYTES 0: the file is right already.
folder=$1
directory=$2
service=$3
dest=$4
base=$5
result=$6
bytes=$7
shift 7
mkdir -p "$folder/staged"
if [ "$bytes" -gt 0 ]; then
    take_parts "$folder"
    next_part "$bytes" "$folder/staged/with-key"
    end_parts
    replace_file "$folder/staged/with-key" "$dest" "$base" "$result"
fi
# restore.sh looks for this mark.
: >"$folder/agent-switched"
now=$(date -u +%Y-%m-%dT%H:%M:%SZ)
cd "$directory" || die 1 "there is no $directory"
take_turn "$folder"
"$@" up -d --no-deps "$service" >&2
say started "$now"
