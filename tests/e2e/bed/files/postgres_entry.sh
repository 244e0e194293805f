#!/bin/sh
# A cluster in an empty volume, with the extension and the user of POSTGRES_USER and POSTGRES_PASSWORD; then it serves.
set -eu
data=/var/lib/postgresql/data
bin=$(echo /usr/lib/postgresql/*/bin)
as="setpriv --reuid=postgres --regid=postgres --clear-groups"
mkdir -p "$data" /var/run/postgresql
chown postgres:postgres "$data" /var/run/postgresql
chmod 700 "$data"
if [ ! -s "$data/PG_VERSION" ]; then
  word=$(mktemp)
  printf '%s' "$POSTGRES_PASSWORD" >"$word"
  chown postgres "$word"
  $as "$bin/initdb" -D "$data" -U "$POSTGRES_USER" --pwfile="$word" --auth-host=scram-sha-256 --auth-local=trust \
    -E UTF8 --locale=C.UTF-8
  rm "$word"
  echo 'host all all all scram-sha-256' >>"$data/pg_hba.conf"
  # DocumentDB connects back to itself, by the socket: over TCP it would be asked for a password.
  cat >>"$data/postgresql.conf" <<EOF
listen_addresses = '*'
unix_socket_directories = '/tmp,/var/run/postgresql'
shared_preload_libraries = 'pg_cron,pg_documentdb_core,pg_documentdb'
cron.database_name = 'postgres'
cron.host = '/tmp'
documentdb.localhost_connection_string = 'host=/tmp'
documentdb_core.enableCollation = on
EOF
  $as "$bin/pg_ctl" -D "$data" -o "-c listen_addresses=''" -w start
  $as "$bin/psql" -h /tmp -U "$POSTGRES_USER" -d postgres -c 'CREATE EXTENSION documentdb CASCADE'
  $as "$bin/pg_ctl" -D "$data" -m fast -w stop
fi
exec $as "$bin/postgres" -D "$data"
