# shellcheck shell=sh
# params: path obsolete?
# Standard input becomes the file `path`, completely or not at all; `obsolete` is removed.
mkdir -p "${path%/*}"
cat >"$path.part"
fsync_file "$path.part"
mv -f "$path.part" "$path"
if [ -n "$obsolete" ]; then rm -f "$obsolete"; fi
say sha256 "$(sha256_of "$path")"
