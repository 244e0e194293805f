# shellcheck shell=sh
# needs: lib/files.sh
# params: path expected mode
# The file comes on standard input. It is put in place complete (sha256 `expected`), or not at all.
ku_temp=
trap '[ -z "$ku_temp" ] || rm -f "$ku_temp"' EXIT
trap 'exit 74' HUP INT PIPE TERM
mkdir -p "${path%/*}"
exclusive_temp "$path"
cat >"$ku_temp"
[ "$(sha256_of "$ku_temp")" = "$expected" ] || die 74 "$path did not arrive complete; nothing was put in place"
chmod "$mode" "$ku_temp"
fsync_file "$ku_temp"
rename_file "$ku_temp" "$path"
fsync_file "${path%/*}"
