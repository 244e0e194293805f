# shellcheck shell=sh
# needs: lib/files.sh
# params: path limit
# Prints `mode owner:group size` (or `none`) and the file's bytes.
if [ ! -e "$path" ]; then
  # It does not exist, or this user must not see it.
  reason=$(ls -d "$path" 2>&1) || :
  case $reason in *'ermission denied'*) die 71 "$path cannot be read: permission denied" ;; esac
  echo none
  exit 0
fi
[ ! -d "$path" ] || die 1 "$path is a folder, a file was expected"
[ -r "$path" ] || die 71 "$path cannot be read: permission denied"
look_up "$path"
facts_of "$path" || die 1 "$path is not a file"
[ "$ku_f_size" -le "$limit" ] || die 1 "$path has $ku_f_size bytes, at most $limit were expected"
require_readable "$path"
facts_of "$path"
printf '%s\n' "$ku_f_mode $ku_f_uid:$ku_f_gid $ku_f_size"
ku_identity "$path"
if [ -z "$ku_uid" ]; then head -c "$limit" "$path"; else read_as_owner "$path" | head -c "$limit"; fi
