# shellcheck shell=sh
# needs: lib/files.sh
# params: folder pinned?
# reapply_core_files.sh [STAGED DEST BASE_SHA RESULT_SHA]…: writes the new version's files again after a rollback that
# failed. `pinned` is the compose file that had Core's key.
keyed=$(sha256_of "$folder/staged/with-key")
while [ $# -ge 4 ]; do
  file_digest "$2"
  if [ "$2" != "$pinned" ] || [ "$sha256" != "$keyed" ]; then
    replace_file "$folder/staged/$1" "$2" "$3" "$4"
  fi
  say written "$2"
  shift 4
done
if [ -n "$pinned" ] && [ -n "$keyed" ] && [ -e "$folder/agent-switched" ]; then
  file_digest "$pinned"
  replace_file "$folder/staged/with-key" "$pinned" "$sha256" "$keyed"
fi
