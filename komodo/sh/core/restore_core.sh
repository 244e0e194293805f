#!/bin/sh
# restore.sh [--dry-run] [stop|database|files|start|check|agent|done|all]
#
# Restores the version of Komodo Core that this host had before the upgrade. Run it as root. It needs only sh and
# docker: the saved files are next to it, and restore.list says where they belong. It asks no questions and may be
# repeated. Without an argument it does `all`: stop, database, files, start, check, agent, done.
#
#   stop      Core (and the periphery of its project) is stopped
#   database  the last dump of the old version is restored, if the new version was ever started
#   files     compose and env files get their saved content
#   start     Core is started in its old version
#   check     its log must report the old version
#   agent     the periphery of its project is re-created in its old version
#   done      records that Core is restored, here and in the folders of later upgrades
set -eu
umask 077
LC_ALL=C
export LC_ALL

here=$(cd "$(dirname "$0")" && pwd)
list=$here/restore.list
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
# library begin
# needs: lib/prelude.sh
# needs: lib/files.sh
# library end
ku_carried=$(sed -n '/^# library begin$/,/^# library end$/p' "$0")
die() { fail "$2"; }
# needs: lib/km.sh
# needs: lib/restore_by_km.sh
# needs: lib/key_pair.sh
require_root_only "$here"
[ -r "$list" ] || fail "cannot read $list (are you root?)"

# value KEY: the first value of a key of restore.list; values KEY: all of them.
values() { sed -n "s/^$1$tab//p" "$list"; }
value() { values "$1" | head -n 1; }
# run WORD…: a command that changes something.
run() {
  if [ "$dry" = yes ]; then
    tell "would run: $*"
  else
    "$@"
  fi
}
old_files=no
# An additional compose file after all others, or nothing.
old_agent=
# in_force PATH: prints PATH, or with old_files=yes its saved copy if PATH has other content.
in_force() {
  if [ "$old_files" = yes ]; then
    saved=$(values saved | while IFS="$tab" read -r sha name path; do
      if [ "$path" = "$1" ] && file_digest "$1" && [ "$sha256" != "$sha" ]; then printf '%s\n' "$here/files/$name"; fi
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
  if [ -n "$env_file" ]; then
    chosen=$(in_force "$env_file") || exit
    set -- --env-file "$chosen" "$@"
  fi
  # The last file first, because each is put in front.
  reversed=
  while IFS= read -r file; do
    reversed="$file
$reversed"
  done <<EOF
$(values compose_file)
EOF
  while IFS= read -r file; do
    [ -n "$file" ] || continue
    chosen=$(in_force "$file") || exit
    set -- -f "$chosen" "$@"
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
# Drops the whole database, where there is mongosh.
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
    tell "there is no mongosh in $(value db_container): collections that only the new version knows remain (the old one does not read them)"
    return 0
  fi
  drop_by_mongosh || tell "mongosh could not drop the database; continuing with mongorestore --drop"
}
# Marks that the database no longer holds the new version's data, until Core is restored. (The tool reads this mark.)
replacing() { : >"$here/database-replaced"; }
do_database() {
  if [ ! -e "$here/core-v2-started" ]; then
    tell "the new version was never started: the database is as it was"
    return 0
  fi
  # KU_DUMP: a dump other than the last one of the old version.
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
    *) fail "mongorestore did not report that every document was restored; the dump is still $dump" ;;
  esac
  # Valid until a Core is started on it.
  printf '%s\n' "$dump" >"$here/database-restored"
}

do_files() {
  values saved | while IFS="$tab" read -r sha name path; do
    saved=$here/files/$name
    [ "$(sha256_of "$saved")" = "$sha" ] || fail "$saved is not what was saved; $path was left as it is"
    file_digest "$path"
    if [ "$sha256" = "$sha" ]; then
      tell "$path is as it was"
      continue
    fi
    tell "restoring $path"
    [ "$dry" = no ] || continue
    # shellcheck disable=SC2094 # a model, which is only read
    as_owner "$path" restore_content "$path" "$sha" "$saved" <"$saved"
  done
}

# old_image KIND: gives the old image the name that the old compose file uses.
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
# marked NAME: this run or a later one has set this mark.
marked() {
  later=
  for folder in "$(dirname "$here")"/*/; do
    folder=${folder%/}
    if [ "${folder##*/}" = "${here##*/}" ]; then later=yes; fi
    if [ -n "$later" ] && [ -e "$folder/$1" ]; then return 0; fi
  done
  return 1
}
# return_pair KIND: a container that had its key pair inside gets it again before it starts: agents pinned that key.
return_pair() {
  [ -n "$(value "$1_pair")" ] || return 0
  pair=core
  [ "$1" = core ] || pair=periphery
  [ -e "$here/keys-inside/$pair.key" ] || return 0
  compose up --no-start --no-deps "$(value "$1_service")"
  container=$(value "$1_container")
  if [ "$dry" = yes ]; then
    tell "would copy the key pair in $here/keys-inside into $container"
    return 0
  fi
  if ! pair_is_inside "$container" || has_pair "$container" "$pair" "$here/keys-inside"; then return 0; fi
  if running "$container"; then docker stop "$container" >/dev/null; fi
  tell "copying the key pair that was inside of $container into it again"
  put_pair_in "$container" "$pair" "$here/keys-inside"
}
# up KIND MARK: starts the service of the present files. If the new version never ran, it is only started again.
up() {
  old_image "$1"
  if marked "$2"; then
    return_pair "$1"
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
    tell "would wait until the log of $core reports version v$version"
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
  fail "Core does not report that it runs in version v$version; see: docker logs $core"
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
    # Core's files may stay in the new version: then this service alone is started from the saved ones.
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
    tell "Core is restored. Each server has a folder and a restore.sh of its own."
    ;;
  *) "do_$what" ;;
esac
