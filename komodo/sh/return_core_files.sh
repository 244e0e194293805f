# shellcheck shell=sh
# return_core_files.sh FOLDER PIN_DEST [STAGED DEST BASE_SHA RESULT_SHA]…: the new version's files in place again after a
# way back that failed. PIN_DEST is the compose file that had Core's key (or empty).
folder=$1
pin=$2
shift 2
keyed=$(sha256_of "$folder/staged/with-key")
while [ $# -ge 4 ]; do
    now=$(sha256_of "$2")
    if [ "$2" != "$pin" ] || [ "$now" != "$keyed" ]; then
        replace_file "$folder/staged/$1" "$2" "$3" "$4"
    fi
    say written "$2"
    shift 4
done
if [ -n "$pin" ] && [ -n "$keyed" ] && [ -e "$folder/agent-switched" ]; then
    replace_file "$folder/staged/with-key" "$pin" "$(sha256_of "$pin")" "$keyed"
fi
