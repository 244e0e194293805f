# shellcheck shell=sh
# needs: lib/jobs.sh
# params: state fleet change
# discard.sh CHANGE…: removes the run folders of these changes of the fleet, under the host's lock, which `change`
# takes. Refused while a job of one of them runs. May be repeated.
[ -d "$state" ] || exit 0
ku_lock_patience=0
ku_lock "$state" "$fleet" "$change"
for name; do
  folder=$state/$fleet/$name
  [ -d "$folder" ] || continue
  if ku_any_alive "$folder"; then
    ku_release "$state" "$fleet $change"
    die 73 "a job of the upgrade $name still runs here: $ku_living"
  fi
  # The manifest says that the backup is complete, so it goes first: half a folder is never taken for a backup.
  rm -f -- "$folder/manifest.json"
  rm -rf -- "$folder"
  say removed "$folder"
done
rmdir "$state/$fleet" 2>/dev/null || :
ku_release "$state" "$fleet $change"
