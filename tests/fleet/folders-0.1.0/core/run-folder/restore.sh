#!/bin/sh
# restore.sh [--dry-run] [stop|database|files|start|check|agent|done|all]
#
# Takes Komodo Core on this host back to the version it had before the upgrade. Run it as root. It needs nothing but
# sh and docker: what it restores lies beside it, where it belongs is told by restore.list. It asks nothing and may be
# repeated. Without a word it does `all`: stop, database, files, start, check, agent, done.
#
#   stop      Core (and the periphery of its project) is stopped
#   database  the last dump of the old version is restored, if the new version was ever started
#   files     compose and env files get their saved content
#   start     Core is started in its old version
#   check     its own log says which version runs
#   agent     the periphery of its project is re-created in its old version
#   done      noted that Core is back, here and in the folders of later upgrades
set -eu
umask 077
LC_ALL=C
export LC_ALL

here=$(cd "$(dirname "$0")" && pwd)
list=$here/restore.list
tab=$(printf '\t')
dry=no
what=
for word in "$@"; do
    case $word in
    --dry-run) dry=yes ;;
    stop | database | files | start | check | agent | done | all) what=$word ;;
    *)
        echo "usage: restore.sh [--dry-run] [stop|database|files|start|check|agent|done|all]" >&2
        exit 2
        ;;
    esac
done
what=${what:-all}

tell() { printf '%s\n' "$*"; }
fail() {
    printf '%s\n' "restore.sh: $*" >&2
    exit 1
}
die() { fail "$2"; }
# shellcheck shell=sh
# km in a container of its own. Needs: docker, die CODE TEXT.

# km_end: no km of ours works on the database (any more).
km_end() {
    docker rm -f komodo-upgrade-km >/dev/null 2>&1 </dev/null || :
}

# km IMAGE NETWORK FOLDER|- LOG WORD…: `km database WORD… -y` with standard input as its environment, so that no
# password is an argument or lies in a file; FOLDER is its /backups. What it says goes to LOG. Returns its exit code.
# Whoever stops the script stops km: its container does not end with the docker command that started it.
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
    # In the background, where a trap need not wait for it; that would take standard input away.
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

# km_said LOG: its last lines, without colours and passwords.
km_said() {
    sed "s/$(printf '\033')\[[0-9;]*m//g; s#://[^@/ ]*@#://***@#g" "$1" | grep -v '^ *$' | tail -n 5
}

# km_unpack ARCHIVE FOLDER: what km wrote, into a new FOLDER; sets km_dated, the name that a restore wants. 65: damaged.
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
# shellcheck shell=sh
# Part of restore.sh: a database without mongorestore. km of Core's old image brings the documents back, in a container of
# its own; it drops nothing. Needs: km.sh, and what restore.sh has.

km_environment() {
    user=$(value db_user)
    secret=
    [ -z "$user" ] || secret=$(password) || exit 1
    mechanism=$(value db_mechanism)
    if [ -n "$mechanism" ] || [ "$(value db_auth_source)" != admin ]; then
        who=
        [ -z "$user" ] || who=$(printf '%s\n' "$user" | encoded):$(printf '%s\n' "$secret" | encoded)@
        printf 'KOMODO_CLI_DATABASE_TARGET_URI=mongodb://%s%s/?authSource=%s%s\n' "$who" "$(value db_host)" \
            "$(value db_auth_source)" "${mechanism:+&authMechanism=$mechanism}"
    else
        printf 'KOMODO_CLI_DATABASE_TARGET_ADDRESS=%s\n' "$(value db_host)"
        [ -z "$user" ] || printf 'KOMODO_CLI_DATABASE_TARGET_USERNAME=%s\nKOMODO_CLI_DATABASE_TARGET_PASSWORD=%s\n' \
            "$user" "$secret"
    fi
    printf 'KOMODO_CLI_DATABASE_TARGET_DB_NAME=%s\n' "$(value db_name)"
}
# FerretDB keeps it in PostgreSQL, whose image has psql.
drop_in_postgres() {
    pg=$(docker ps --filter "label=com.docker.compose.project=$(value project)" --format '{{.Names}} {{.Image}}' |
        awk '/postgres/ { print $1; exit }')
    [ -n "$pg" ] || return 1
    user=$(variable POSTGRES_USER "$pg")
    base=$(variable POSTGRES_DB "$pg")
    docker exec "$pg" psql -U "${user:-postgres}" -d "${base:-${user:-postgres}}" \
        -c "SELECT documentdb_api.drop_database('$(value db_name)')" >/dev/null 2>&1
}
drop_for_km() {
    if has_mongosh && drop_by_mongosh; then return 0; fi
    drop_in_postgres || fail "the database $(value db_name) could not be dropped (by mongosh, or by psql in a container \
of PostgreSQL), and km alone would mix both versions' data. Drop it with any MongoDB client (db.dropDatabase()), then: \
KU_DROPPED=yes sh $here/restore.sh"
}
restore_by_km() {
    tell "restoring the database $(value db_name) from $dump with km"
    if [ "$dry" = yes ]; then
        tell "would drop the database and run km database restore in a container of $(value core_image)"
        return 0
    fi
    rm -f "$here/database-restored"
    ! running "$core" || fail "Core is still running: stop it first (restore.sh stop)"
    running "$(value db_container)" || run docker start "$(value db_container)"
    km_work=$dump.restore.d
    km_restored=$dump.restore.log
    trap 'rm -rf "$km_work" "$km_restored"' EXIT
    km_unpack "$dump" "$km_work"
    environment=$(km_environment)
    km_end
    replacing
    [ "${KU_DROPPED:-no}" = yes ] || drop_for_km
    code=0
    printf '%s\n' "$environment" |
        km "$(value core_image_id)" "$(value db_network)" "$km_work" "$km_restored" restore \
            --restore-folder "$km_dated" || code=$?
    km_said "$km_restored" | tail -n 2
    [ "$code" -eq 0 ] || fail "km ended with $code; the dump is still $dump"
    # It ends with 0 whatever became of a collection.
    ! grep -q ERROR "$km_restored" || fail "km could not restore every collection; the dump is still $dump"
    grep -q Restored "$km_restored" || fail "km restored nothing; the dump is still $dump"
    printf '%s\n' "$dump" >"$here/database-restored"
}
[ -r "$list" ] || fail "cannot read $list (are you root?)"

# value KEY: the first value of a key of restore.list; values KEY: all of them.
values() { sed -n "s/^$1$tab//p" "$list"; }
value() { values "$1" | head -n 1; }
digest() {
    found=$(sha256sum <"$1")
    printf '%s\n' "${found%% *}"
}
# run WORD…: a command that changes something.
run() {
    if [ "$dry" = yes ]; then
        tell "would run: $*"
    else
        "$@"
    fi
}
# in_force PATH: PATH, or with old_files=yes its saved copy where PATH holds something else now.
old_files=no
# A compose file of ours after all others, or nothing.
old_agent=
in_force() {
    if [ "$old_files" = yes ]; then
        saved=$(values saved | while IFS="$tab" read -r sha name path; do
            if [ "$path" = "$1" ] && [ "$(digest "$1")" != "$sha" ]; then printf '%s\n' "$here/files/$name"; fi
        done)
        printf '%s\n' "${saved:-$1}"
    else
        printf '%s\n' "$1"
    fi
}
# compose WORD…: docker compose -p PROJECT -f FILE… [--env-file FILE] [--project-directory DIR] WORD…, as it was found.
compose() {
    directory=$(value directory)
    env_file=$(value env_file)
    if [ -n "$(value project_directory)" ] || [ "$old_files" = yes ]; then
        set -- --project-directory "$directory" "$@"
    fi
    if [ -z "$env_file" ] && [ "$(in_force "$directory/.env")" != "$directory/.env" ]; then
        env_file=$directory/.env
    fi
    [ -z "$env_file" ] || set -- --env-file "$(in_force "$env_file")" "$@"
    # Last file first, because each goes in front.
    reversed=
    while IFS= read -r file; do
        reversed="$file
$reversed"
    done <<EOF
$(values compose_file)
EOF
    while IFS= read -r file; do
        [ -z "$file" ] || set -- -f "$(in_force "$file")" "$@"
    done <<EOF
$old_agent
$reversed
EOF
    set -- -p "$(value project)" "$@"
    case $(value compose) in
    docker-compose) set -- docker-compose "$@" ;;
    *) set -- docker compose "$@" ;;
    esac
    if [ "$dry" = yes ]; then
        tell "would run: cd $directory && $*"
        return 0
    fi
    (cd "$directory" && "$@")
}
core=$(value core_container)
version=$(value version)
newest_dump() {
    newest=
    number=1
    kind=archive.gz
    [ -z "$(value db_network)" ] || kind=km.tar
    path=$here/dumps/final.$kind
    while [ -e "$path" ] || [ "$number" -eq 1 ]; do
        [ ! -e "$path" ] || newest=$path
        number=$((number + 1))
        path=$here/dumps/final.$number.$kind
    done
    printf '%s\n' "$newest"
}
running() {
    docker inspect "$1" 2>/dev/null | tr ',' '\n' | grep -q '"Running": *true'
}

do_stop() {
    tell "stopping Core"
    compose stop "$(value core_service)"
    agent=$(value agent_service)
    if [ -n "$agent" ] && [ "$what" = all ]; then compose stop "$agent"; fi
}

# variable NAME CONTAINER: a value of the container's environment; never printed.
variable() {
    docker inspect -f '{{range .Config.Env}}{{println .}}{{end}}' "$2" 2>/dev/null | sed -n "s/^$1=//p" | head -n 1
}
# The database's password on standard output, or nothing. It never becomes an argument.
password() {
    if [ -n "$(value db_password_file)" ]; then
        head -n 1 "$(value db_password_file)"
    elif [ -n "$(value db_uri_variable)" ]; then
        variable "$(value db_uri_variable)" "$core" | sed 's#^[a-z+]*://[^:]*:\(.*\)@[^@]*$#\1#' | decoded
    elif [ -n "$(value db_user)" ]; then
        found=$(variable "$(value db_password_variable)" "$core")
        [ -n "$found" ] || found=$(variable MONGO_INITDB_ROOT_PASSWORD "$(value db_container)")
        [ -n "$found" ] || fail "the database's password is in no container's environment any more"
        printf '%s\n' "$found"
    fi
}
decoded() {
    awk 'BEGIN { for (n = 0; n < 256; n++) { byte[sprintf("%02X", n)] = sprintf("%c", n); byte[sprintf("%02x", n)] = byte[sprintf("%02X", n)] } }
        { out = ""; while (at = index($0, "%")) { out = out substr($0, 1, at - 1) byte[substr($0, at + 1, 2)]; $0 = substr($0, at + 3) } print out $0 }'
}
encoded() {
    awk 'BEGIN { for (n = 1; n < 256; n++) code[sprintf("%c", n)] = sprintf("%%%02X", n) }
        { out = ""; for (n = 1; n <= length($0); n++) { c = substr($0, n, 1); out = out (c ~ /[A-Za-z0-9]/ ? c : code[c]) } print out }'
}
# The one line that mongorestore's --config takes.
credentials() { password | sed 's/\\/\\\\/g; s/"/\\"/g; s/^/password: "/; s/$/"/'; }
# Everything goes, where mongosh is.
drop_by_mongosh() {
    login=
    [ -z "$(value db_user)" ] || login=$(value db_user | encoded):$(password | encoded)@
    printf 'db = connect("mongodb://%s127.0.0.1:%s/%s?authSource=%s")\ndb.dropDatabase()\n' \
        "$login" "$(value db_port)" "$(value db_name)" "$(value db_auth_source)" |
        docker exec -i "$(value db_container)" mongosh --quiet --nodb >/dev/null 2>&1
}
has_mongosh() { docker exec "$(value db_container)" mongosh --version >/dev/null 2>&1; }
# mongorestore --drop leaves collections that the archive does not have.
drop_everything() {
    if ! has_mongosh; then
        tell "there is no mongosh in $(value db_container): collections that only the new version knows stay behind (the old one does not read them)"
        return 0
    fi
    drop_by_mongosh || tell "mongosh could not drop the database; going on with mongorestore --drop"
}
# Until Core is back: what is in the database is the new version's no more. (The tool looks for this mark.)
replacing() { : >"$here/database-replaced"; }
do_database() {
    if [ ! -e "$here/core-v2-started" ]; then
        tell "the new version was never started: the database is as it was"
        return 0
    fi
    # KU_DUMP: another dump than the last one of the old version.
    dump=${KU_DUMP:-$(newest_dump)}
    [ -n "$dump" ] || fail "there is no final dump in $here/dumps: the database cannot be restored"
    case $dump in
    *.km.tar)
        restore_by_km
        return 0
        ;;
    esac
    gzip -t "$dump" || fail "$dump is damaged"
    db=$(value db_container)
    inside=/tmp/komodo-upgrade-restore.archive.gz
    tell "restoring the database $(value db_name) from $dump into $db"
    if [ "$dry" = yes ]; then
        tell "would drop the database and run mongorestore --drop in $db"
        return 0
    fi
    rm -f "$here/database-restored"
    ! running "$core" || fail "Core is still running: stop it first (restore.sh stop)"
    running "$db" || run docker start "$db"
    replacing
    [ "${KU_DROPPED:-no}" = yes ] || drop_everything
    docker cp "$dump" "$db:$inside"
    code=0
    set -- "--uri=$(value db_uri)" "--archive=$inside" --gzip --drop
    if [ -n "$(value db_user)" ]; then
        said=$(credentials | docker exec -i "$db" mongorestore --config=/dev/stdin "$@" 2>&1) || code=$?
    else
        said=$(docker exec -i "$db" mongorestore "$@" 2>&1 </dev/null) || code=$?
    fi
    docker exec "$db" rm -f "$inside" || true
    printf '%s\n' "$said" | sed 's#://[^@/ ]*@#://***@#g' | tail -n 3
    [ "$code" -eq 0 ] || fail "mongorestore ended with $code; the dump is still $dump"
    case $said in
    "0 document(s) restored"* | *[!0-9]"0 document(s) restored"*) fail "mongorestore restored nothing; the dump is still $dump" ;;
    *" 0 document(s) failed"*) ;;
    *) fail "mongorestore did not say that every document was restored; the dump is still $dump" ;;
    esac
    # Until a Core is started on it.
    printf '%s\n' "$dump" >"$here/database-restored"
}

# written SAVED PATH TEMP: TEMP is what PATH is (owner, mode, label), with SAVED's bytes in it.
written() {
    if [ -e "$2" ]; then cp -a "$2" "$3" && cat "$1" >"$3"; else cp -p "$1" "$3"; fi
}
do_files() {
    values saved | while IFS="$tab" read -r sha name path; do
        saved=$here/files/$name
        [ "$(digest "$saved")" = "$sha" ] || fail "$saved is not what was saved; $path was left as it is"
        if [ -e "$path" ] && [ "$(digest "$path")" = "$sha" ]; then
            tell "$path is as it was"
            continue
        fi
        tell "restoring $path"
        [ "$dry" = no ] || continue
        temp=$path.restore.$$
        if ! written "$saved" "$path" "$temp" || [ "$(digest "$temp")" != "$sha" ]; then
            rm -f "$temp"
            fail "cannot write beside $path; it was left as it is"
        fi
        sync "$temp" 2>/dev/null || sync
        mv -f "$temp" "$path"
    done
}

# image KIND: the old image under the name the old compose file uses.
old_image() {
    reference=$(value "$1_image")
    identity=$(value "$1_image_id")
    now=$(docker image inspect "$reference" 2>/dev/null | tr ',' '\n' |
        sed -n 's/.*"Id": *"\(sha256:[0-9a-f]*\)".*/\1/p' | head -n 1)
    if [ -n "$now" ] && [ "$now" != "$identity" ]; then
        case $reference in
        *@*) ;;
        *)
            tell "$reference is another image now; giving the name back to $identity"
            run docker tag "$identity" "$reference"
            ;;
        esac
    fi
}
# marked NAME: by this upgrade, or by a later run of it.
marked() {
    later=
    for folder in "$(dirname "$here")"/*/; do
        folder=${folder%/}
        if [ "${folder##*/}" = "${here##*/}" ]; then later=yes; fi
        if [ -n "$later" ] && [ -e "$folder/$1" ]; then return 0; fi
    done
    return 1
}
# up KIND MARK: the service of the files now in place. Where the new version never ran it is only started again.
up() {
    old_image "$1"
    if marked "$2"; then
        compose up -d --no-deps "$(value "$1_service")"
    else
        compose start "$(value "$1_service")"
    fi
}
do_start() {
    tell "starting Core $version"
    if [ "$dry" = no ]; then
        rm -f "$here/database-restored"
        date -u +%Y-%m-%dT%H:%M:%SZ >"$here/old-core-started-at"
    fi
    up core core-v2-started
}
do_check() {
    if [ "$dry" = yes ]; then
        tell "would wait until the log of $core says version v$version"
        return 0
    fi
    since=$(cat "$here/old-core-started-at" 2>/dev/null || echo 1970-01-01T00:00:00Z)
    tries=0
    while [ "$tries" -lt 90 ]; do
        log=$(docker logs --since "$since" "$core" 2>&1 || true)
        case $log in
        *"Komodo Core version: v$version"*"starting on"*)
            tell "Komodo Core v$version runs"
            return 0
            ;;
        esac
        tries=$((tries + 1))
        sleep 1
    done
    fail "Core does not say that it runs in version v$version; see: docker logs $core"
}
# The saved files may name a newer image than the one that ran (Core's upgrade had written them before).
name_old_agent() {
    [ "$dry" = no ] || return 0
    image=$(value agent_image)
    if compose config 2>/dev/null | tr -d "\"'" | grep -qF "image: $image"; then return 0; fi
    printf 'services:\n  "%s":\n    image: "%s"\n' "$(value agent_service)" "$image" >"$here/old-agent.yaml"
    old_agent=$here/old-agent.yaml
}
do_agent() {
    if [ -n "$(value agent_service)" ]; then
        tell "starting the periphery of Core's project in its old version"
        # Core's files may stay in the new version: then this one service is started from the saved ones.
        old_files=yes
        name_old_agent
        up agent agent-switched
        old_files=no
        old_agent=
    fi
}
do_done() {
    [ "$dry" = no ] || return 0
    rm -f "$here/database-replaced"
    later=
    for folder in "$(dirname "$here")"/*/; do
        folder=${folder%/}
        if [ "${folder##*/}" = "${here##*/}" ]; then later=yes; fi
        if [ -n "$later" ] && [ -f "$folder/restore.list" ]; then date -u +%Y-%m-%dT%H:%M:%SZ >"$folder/rolled-back-at"; fi
    done
}

case $what in
all)
    do_stop
    do_database
    do_files
    do_start
    do_check
    do_agent
    do_done
    tell "Core is back. Each server has a folder and a restore.sh of its own."
    ;;
*) "do_$what" ;;
esac
