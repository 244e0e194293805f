# shellcheck shell=sh
# needs: lib/input_parts.sh
# needs: lib/compose_images.sh
# params: folder directory record?
# stage_core.sh [pull REF]… [pin NAME REF]… [part BYTES NAME SHA256]… compose COMPOSE…
# Pulls images, pins them by containers that are created and never started (Komodo prunes unused images every day),
# stores the edited files (standard input) in FOLDER/staged and prints which images compose takes from them. Changes
# nothing that runs. `record`: a file of the run folder to which the names of the pins are added.
mkdir -p "$folder/staged"
chmod 700 "$folder" "$folder/staged"
take_parts "$folder"
while [ "${1:-}" = pull ]; do
  # 77: the download failed; it may work later.
  docker pull "$2" >/dev/null || die 77 "docker pull $2 failed"
  shift 2
done
while [ "${1:-}" = pin ]; do
  if ! docker inspect "$2" >/dev/null 2>&1; then
    docker create --name "$2" "$3" >/dev/null
  fi
  if [ -n "$record" ] && ! grep -qxF "$2" "$folder/$record" 2>/dev/null; then printf '%s\n' "$2" >>"$folder/$record"; fi
  say image_pin "$2"
  shift 3
done
while [ "${1:-}" = part ]; do
  next_part "$2" "$folder/staged/$3"
  [ "$(sha256_of "$folder/staged/$3")" = "$4" ] || die 74 "$folder/staged/$3 did not arrive complete"
  shift 4
done
end_parts
[ "${1:-}" = compose ] || die 74 "stage_core.sh: the compose command is missing"
shift
cd "$directory" || die 1 "there is no $directory"
if ! "$@" config --quiet >"$folder/staged/config.log" 2>&1; then
  tail -n 5 "$folder/staged/config.log" >&2
  die 76 "compose does not accept the edited files"
fi
compose_images "$@" || :
say image "$images"
