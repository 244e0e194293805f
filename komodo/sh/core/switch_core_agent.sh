# shellcheck shell=sh
# needs: lib/files.sh
# needs: lib/input_parts.sh
# needs: lib/compose_lock.sh
# needs: lib/key_pair.sh
# needs: lib/approved_image.sh
# params: folder directory service inside? keys? dest? base? result? bytes image? approved?
# switch_core_agent.sh COMPOSE…: writes the compose file with Core's key (standard input), then re-creates the
# periphery of Core's project. `bytes` 0: the file is right already. `inside`: its container, which has its key pair
# inside: the pair is copied into the run folder and into `keys` first.
mkdir -p "$folder/staged"
use_approved "$image" "$approved"
if [ -n "$inside" ]; then move_pair_out "$inside" periphery "$folder/keys-inside" "$keys"; fi
if [ "$bytes" -gt 0 ]; then
  take_parts "$folder"
  next_part "$bytes" "$folder/staged/with-key"
  end_parts
  replace_file "$folder/staged/with-key" "$dest" "$base" "$result"
fi
# restore.sh reads this mark.
: >"$folder/agent-switched"
now=$(date -u +%Y-%m-%dT%H:%M:%SZ)
cd "$directory" || die 1 "there is no $directory"
take_compose_lock "$folder"
"$@" up -d --no-deps "$service" >&2
say started "$now"
