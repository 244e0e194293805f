# shellcheck shell=sh
# write_core_files.sh FOLDER KEYS_DIR [STAGED DEST BASE_SHA RESULT_SHA]…: the staged files in place, and the folder for
# Core's keys (root only) where there is none. KEYS_DIR may be empty: a named volume, which compose makes.
folder=$1
keys=$2
shift 2
if [ -n "$keys" ] && [ ! -d "$keys" ]; then
    mkdir -m 0700 "$keys"
    fsync_file "${keys%/*}"
    say made "$keys"
fi
while [ $# -ge 4 ]; do
    replace_file "$folder/staged/$1" "$2" "$3" "$4"
    say written "$2"
    shift 4
done
