# shellcheck shell=sh
# needs: lib/compose_images.sh
# params: directory core? database?
# survey_project.sh COMPOSE…: facts about a Compose project. COMPOSE are the words before the sub-command. `core`: Core's
# container, where it is Core's project. Reads only.
above=$directory
while [ -n "$above" ]; do
  if [ -e "$above/.git" ]; then
    say git "$above"
    break
  fi
  above=${above%/*}
done

# Komodo prints its version at every start; the last one counts.
if [ -n "$core" ]; then
  output=$(docker logs "$core" 2>&1 | grep -o 'Komodo Core version: v[0-9][0-9A-Za-z.+-]*' | tail -n 1) || :
  say version "${output##*version: v}"
fi

if [ -n "$database" ]; then
  code=0
  docker exec "$database" mongodump --version >/dev/null 2>&1 || code=$?
  # docker ends with 126 or 127 where there is no such program.
  case $code in
    126 | 127) say mongodump no ;;
    *) say mongodump yes ;;
  esac
fi

cd "$directory" || die 1 "there is no $directory"
if compose_images "$@"; then
  say image "$images"
else
  say config_error "$("$@" config --quiet 2>&1 | tail -n 5)"
fi
