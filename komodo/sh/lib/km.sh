# shellcheck shell=sh
# km in a container of its own. Needs: docker, die CODE TEXT.

# km_end: removes the container of km, so that no km works on the database any more.
km_end() {
  docker rm -f komodo-upgrade-km >/dev/null 2>&1 </dev/null || :
}

# km IMAGE NETWORK FOLDER|- LOG WORD…: `km database WORD… -y` with standard input as its environment, so that no
# password is in an argument or a file; FOLDER is its /backups. Its output goes to LOG. Returns its exit code.
# A signal to the script also ends km: its container does not end with the docker command that started it.
km() {
  km_image=$1
  km_network=$2
  km_folder=$3
  km_log=$4
  shift 4
  km_end
  set -- --entrypoint km "$km_image" database "$@" -y
  if [ "$km_folder" != - ]; then set -- -v "$km_folder:/backups" "$@"; fi
  trap 'km_end; exit 143' HUP INT TERM
  # In the background, so that a trap runs at once. A process in the background would get no standard input.
  exec 3<&0
  docker run --rm --name komodo-upgrade-km --pull never --network "$km_network" --security-opt=label=disable \
    --env-file /dev/stdin -e KOMODO_CLI_BACKUPS_FOLDER=/backups -e KOMODO_CLI_MAX_BACKUPS=0 "$@" \
    <&3 >"$km_log" 2>&1 &
  exec 3<&-
  km_code=0
  wait "$!" || km_code=$?
  trap - HUP INT TERM
  return "$km_code"
}

# km_output LOG: its last lines, without colours and passwords.
km_output() {
  sed "s/$(printf '\033')\[[0-9;]*m//g; s#://[^@/ ]*@#://***@#g" "$1" | grep -v '^ *$' | tail -n 5
}

# km_unpack ARCHIVE FOLDER: unpacks a backup of km into a new FOLDER; sets km_dated, the name that a restore needs.
# Exit code 65: it is damaged.
km_unpack() {
  rm -rf "$2"
  mkdir "$2"
  chmod 700 "$2"
  tar -C "$2" -xf "$1" 2>/dev/null || die 65 "truncated: $1 is cut off or damaged (tar)"
  km_dated=
  for km_file in "$2"/*.gz "$2"/*/*.gz; do
    [ -e "$km_file" ] || continue
    gzip -t "$km_file" 2>/dev/null || die 65 "truncated: ${km_file##*/} is cut off or damaged (gzip -t)"
    km_file=${km_file%/*}
    [ "$km_file" = "$2" ] || km_dated=${km_file##*/}
  done
  [ -n "$km_dated" ] || die 65 "wrong database: $1 holds no backup of km"
}
