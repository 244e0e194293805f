# shellcheck shell=sh
# write_core_files.sh FOLDER KEYS_DIR yes|no RECORD [STAGED DEST BASE_SHA RESULT_SHA]…: the staged files in place, and the
# folder for Core's keys (root only) where there is none. KEYS_DIR may be empty: a named volume, which compose makes.
# RECORD becomes what comes on standard input, first of all: it is what leads back from here; empty: nothing comes.
# `yes`: the key pair that was staged goes into it first; one that is there already stays.
folder=$1
keys=$2
pair=$3
record=$4
shift 4
if [ -n "$record" ]; then
    cat >"$record.part"
    fsync_file "$record.part"
    mv -f "$record.part" "$record"
fi
if [ -n "$keys" ] && [ ! -d "$keys" ]; then
    mkdir -m 0700 "$keys"
    fsync_file "${keys%/*}"
    say made "$keys"
fi
if [ "$pair" = yes ]; then
    staged=$folder/staged/core.key
    if [ -e "$keys/core.key" ]; then
        [ ! -e "$staged" ] || [ "$(sha256_of "$staged")" = "$(sha256_of "$keys/core.key")" ] ||
            die 72 "$keys/core.key is not the key that was made beforehand: somebody else has put one there; left as it is"
    else
        [ -e "$staged" ] || die 72 "$keys/core.key, whose public part was planned with, is gone"
        # The private part last: once it is there, both are. It belongs to whom the folder belongs: Core's own user.
        for part in core.pub core.key; do
            temp=$keys/.$part.komodo-upgrade.$$
            cp -- "$folder/staged/$part" "$temp"
            chmod 600 "$temp"
            chown "$(stat -c '%u:%g' "$keys")" "$temp" 2>/dev/null || [ "$(id -u)" != 0 ] || die 71 "cannot chown $temp"
            fsync_file "$temp"
            mv -f -- "$temp" "$keys/$part"
        done
        fsync_file "$keys"
        say written "$keys/core.key"
    fi
fi
while [ $# -ge 4 ]; do
    replace_file "$folder/staged/$1" "$2" "$3" "$4"
    say written "$2"
    shift 4
done
