# shellcheck shell=sh
# push.sh PATH SHA256 MODE: the file comes on standard input and is put in place whole, or not at all.
ku_temp=$1.komodo-upgrade.$$
trap 'rm -f "$ku_temp"' EXIT
trap 'exit 74' HUP INT PIPE TERM
mkdir -p "${1%/*}"
cat >"$ku_temp"
[ "$(sha256_of "$ku_temp")" = "$2" ] || die 74 "$1 did not arrive whole; nothing was put in place"
chmod "$3" "$ku_temp"
fsync_file "$ku_temp"
mv -f "$ku_temp" "$1"
fsync_file "${1%/*}"
