# shellcheck shell=sh
# resolve_project.sh DIRECTORY COMPOSE…: what compose makes of the project in this shell, as JSON; nothing where it cannot
# (docker-compose 1.x). It holds secrets, so it is read and never kept. Reads only.
cd "$1" || die 1 "there is no $1"
shift
"$@" config --format json 2>/dev/null || :
