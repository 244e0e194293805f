# shellcheck shell=sh
# Part of restore.sh, for a database without mongorestore. km of Core's old image restores the documents, in a
# container of its own; it drops nothing. Needs km.sh and the functions of restore.sh.

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
# FerretDB stores the data in PostgreSQL, whose image has psql.
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
  km_output "$km_restored" | tail -n 2
  [ "$code" -eq 0 ] || fail "km ended with $code; the dump is still $dump"
  # It ends with 0 even if a collection failed.
  ! grep -q ERROR "$km_restored" || fail "km could not restore every collection; the dump is still $dump"
  grep -q Restored "$km_restored" || fail "km restored nothing; the dump is still $dump"
  printf '%s\n' "$dump" >"$here/database-restored"
}
