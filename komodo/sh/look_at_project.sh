# shellcheck shell=sh
# needs: compose_images.sh
# look_at_project.sh DIRECTORY CORE DATABASE COMPOSE…: facts about the project. Reads only. COMPOSE are the words before
# the sub-command; DATABASE may be empty.
directory=$1
core=$2
database=$3
shift 3

above=$directory
while [ -n "$above" ]; do
    if [ -e "$above/.git" ]; then
        say git "$above"
        break
    fi
    above=${above%/*}
done

# Komodo prints its version at every start; the last one counts.
said=$(docker logs "$core" 2>&1 | grep -o 'Komodo Core version: v[0-9][0-9A-Za-z.+-]*' | tail -n 1) || :
say version "${said##*version: v}"

if [ -n "$database" ]; then
    code=0
    docker exec "$database" mongodump --version >/dev/null 2>&1 || code=$?
    # 126 and 127 are docker's own words for: no such program.
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
