# shellcheck shell=sh
# needs: jobs.sh
# discard.sh STATE FLEET OWNER CHANGE…: removes the run folders of these changes, under the host's lock. Refused while a
# job of one of them runs. May be repeated.
ku_base=$1
ku_fleet=$2
ku_change=$3
shift 3
[ -d "$ku_base" ] || exit 0
ku_lock_patience=0
ku_lock "$ku_base" "$ku_fleet" "$ku_change"
for ku_name; do
    ku_folder=$ku_base/$ku_fleet/$ku_name
    [ -d "$ku_folder" ] || continue
    if ku_any_alive "$ku_folder"; then
        ku_release "$ku_base" "$ku_fleet $ku_change"
        die 73 "a job of the upgrade $ku_name still runs here: $ku_living"
    fi
    # The mark that it is whole goes first: half a folder is never taken for one that can lead back.
    rm -f -- "$ku_folder/manifest.json"
    rm -rf -- "$ku_folder"
    say removed "$ku_folder"
done
rmdir "$ku_base/$ku_fleet" 2>/dev/null || :
ku_release "$ku_base" "$ku_fleet $ku_change"
