# shellcheck shell=sh
# look_at_files.sh STATE_DIR FILE…: digests, owner and mode of files (or `-` where there is none), and free space.
# Reads only.
state=$1
shift
while [ ! -d "$state" ]; do
    state=${state%/*}
    [ -n "$state" ] || state=/
done
free=$(df -Pk "$state" | awk 'NR == 2 { print $4 }')
say free "$((free * 1024))"
for file in "$@"; do
    if [ -d "$file" ]; then
        say file "-	$(stat -c '%u:%g	%a' "$file")	$file"
    elif [ -e "$file" ]; then
        say file "$(sha256_of "$file")	$(stat -c '%u:%g	%a' "$file")	$file"
    else
        say file "-	-	-	$file"
    fi
done
