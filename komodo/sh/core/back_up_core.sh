# shellcheck shell=sh
# needs: lib/files.sh
# needs: lib/input_parts.sh
# needs: lib/key_pair.sh
# params: folder suffix
# back_up_core.sh [part BYTES NAME]… [pair CONTAINER NAME]… [file PATH SHA256 NAME yes|no]…: fills Core's run folder.
# Standard input holds the parts. `pair`: the key pair NAME lies inside of the container. `yes`: also a copy next to the
# file, with the upgrade guide's name PATH+suffix.
mkdir -p "$folder/files"
chmod 700 "$folder" "$folder/files"
require_root_only "$folder"
take_parts "$folder"
while [ "${1:-}" = part ]; do
  next_part "$2" "$folder/$3"
  shift 3
done
end_parts
chmod 700 "$folder/restore.sh"
while [ "${1:-}" = pair ]; do
  if pair_is_inside "$2"; then copy_pair_out "$2" "$3" "$folder/keys-inside"; fi
  shift 3
done
while [ "${1:-}" = file ]; do
  file_digest "$2"
  [ "$sha256" = "$3" ] || die 72 "$2 was changed after it was read for the backup; nothing was upgraded"
  saved=$folder/files/$4
  save_copy "$2" "$saved" "$3"
  ku_result=
  if [ "$5" = yes ]; then as_owner "$2" copy_of "$2" "$2$suffix" "$3"; fi
  say saved "$2$tab$saved$tab$3$tab$ku_result"
  shift 5
done
fsync_file "$folder"
say taken "$(date -u +%Y-%m-%dT%H:%M:%SZ)"
