# shellcheck shell=sh
# km in a container of its own. Needs: docker.
#
# km IMAGE NETWORK FOLDER|- LOG WORD…: `km database WORD… -y` with standard input as its environment, so that no
# password is an argument or lies in a file; FOLDER is its /backups. What it says goes to LOG. Returns its exit code.
km() {
    km_image=$1
    km_network=$2
    km_folder=$3
    km_log=$4
    shift 4
    docker rm -f komodo-upgrade-km >/dev/null 2>&1 || :
    set -- --entrypoint km "$km_image" database "$@" -y
    if [ "$km_folder" != - ]; then set -- -v "$km_folder:/backups" "$@"; fi
    docker run --rm --name komodo-upgrade-km --pull never --network "$km_network" --env-file /dev/stdin \
        -e KOMODO_CLI_BACKUPS_FOLDER=/backups -e KOMODO_CLI_MAX_BACKUPS=0 "$@" >"$km_log" 2>&1
}

# km_said LOG: its last lines, without colours and passwords.
km_said() {
    sed 's/\x1b\[[0-9;]*m//g; s#://[^@/ ]*@#://***@#g' "$1" | grep -v '^ *$' | tail -n 5
}
