# shellcheck shell=sh
# needs: parts.sh
# needs: compose_images.sh
# stage_core.sh FOLDER DIRECTORY [pull REF]… [keep NAME REF]… [part BYTES NAME SHA256]… -- COMPOSE…
# Fetches images, holds them by created, never started containers (Komodo prunes unused images every day), lays the
# edited files down in FOLDER/staged and shows what compose makes of them. Nothing that runs is touched.
folder=$1
directory=$2
shift 2
mkdir -p "$folder/staged"
chmod 700 "$folder" "$folder/staged"
take_parts "$folder"
while [ "${1:-}" = pull ]; do
    # 77: could not be fetched; may work later.
    docker pull "$2" >/dev/null || die 77 "docker pull $2 failed"
    shift 2
done
while [ "${1:-}" = keep ]; do
    if ! docker inspect "$2" >/dev/null 2>&1; then
        docker create --name "$2" "$3" >/dev/null
    fi
    say keeper "$2"
    shift 3
done
while [ "${1:-}" = part ]; do
    next_part "$2" "$folder/staged/$3"
    [ "$(sha256_of "$folder/staged/$3")" = "$4" ] || die 74 "$folder/staged/$3 did not arrive whole"
    shift 4
done
end_parts
[ "${1:-}" = -- ] || die 74 "stage_core.sh: the compose command is missing"
shift
cd "$directory" || die 1 "there is no $directory"
if ! "$@" config --quiet >"$folder/staged/config.log" 2>&1; then
    tail -n 5 "$folder/staged/config.log" >&2
    die 76 "compose does not accept the edited files"
fi
compose_images "$@" || :
say image "$images"
