#!/bin/sh
# Creates both databases, if they are missing, and brings their schema up to date. The schema files are in the image.
set -eu
for name in temporal temporal_visibility; do
    case $name in
        temporal) files=temporal ;;
        *) files=visibility ;;
    esac
    tool() {
        temporal-sql-tool --plugin postgres12 --ep "$POSTGRES_SEEDS" -p "$DB_PORT" -u "$POSTGRES_USER" --db "$name" "$@"
    }
    tool create
    # It fails where the schema exists already; then the update decides.
    tool setup-schema -v 0.0 || echo "$name: the schema exists"
    tool update-schema -d "/etc/temporal/schema/postgresql/v12/$files/versioned"
done
