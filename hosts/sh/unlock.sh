# shellcheck shell=sh
# needs: lib/jobs.sh
# params: state change seconds?
# Releases the host's lock if `change` holds it; the lock of another change is left alone. Waits up to `seconds` for a
# job of the change: a retry may read the job's result before the job itself has ended.
ku_owner_of "$state/lock"
case $ku_owner in
  *" $change")
    left=${seconds:-0}
    while ku_any_alive "$state/${ku_owner%% *}/$change"; do
      [ "$left" -gt 0 ] || die 73 "a job of this upgrade still runs: $ku_living"
      left=$((left - 1))
      sleep 1
    done
    ku_release "$state" "$ku_owner"
    say unlocked "$change"
    ;;
  *) say kept "$ku_owner" ;;
esac
