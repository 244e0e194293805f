# shellcheck shell=sh
# needs: jobs.sh
# unlock.sh STATE CHANGE [SECONDS]: gives the host's lock back if this change holds it. Somebody else's lock is left alone.
# A job of the change is waited for that long: what it was for may be read by a later try before it has come to its end.
ku_owner_of "$1/lock"
case $ku_owner in
*" $2")
    ku_left=${3:-0}
    while ku_any_alive "$1/${ku_owner%% *}/$2"; do
        [ "$ku_left" -gt 0 ] || die 73 "a job of this upgrade still runs: $ku_living"
        ku_left=$((ku_left - 1))
        sleep 1
    done
    ku_release "$1" "$ku_owner"
    say unlocked "$2"
    ;;
*) say kept "$ku_owner" ;;
esac
