# shellcheck shell=sh
# read.sh PATH LIMIT: prints `mode owner:group size` (or `none`) and the file's bytes.
if [ ! -e "$1" ]; then
    # Not there, or not to be seen by this user?
    ku_why=$(ls -d "$1" 2>&1) || :
    case $ku_why in *'ermission denied'*) die 71 "$1 cannot be looked at: permission denied" ;; esac
    echo none
    exit 0
fi
[ ! -d "$1" ] || die 1 "$1 is a folder, a file was expected"
[ -r "$1" ] || die 71 "$1 cannot be read: permission denied"
ku_facts=$(stat -L -c '%a %u:%g %s' "$1")
[ "${ku_facts##* }" -le "$2" ] || die 1 "$1 has ${ku_facts##* } bytes, at most $2 were expected"
printf '%s\n' "$ku_facts"
head -c "$2" "$1"
