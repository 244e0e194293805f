# shellcheck shell=sh
# params: directory
# resolve_project.sh COMPOSE…: the project as compose resolves it in this shell, as JSON; nothing where compose cannot
# do it (docker-compose 1.x). It holds secrets, so the output is never stored. Reads only.
cd "$directory" || die 1 "there is no $directory"
"$@" config --format json 2>/dev/null || :
