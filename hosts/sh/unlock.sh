# shellcheck shell=sh
# needs: jobs.sh
# unlock.sh STATE CHANGE: gives the host's lock back if this change holds it. Somebody else's lock is left alone.
ku_owner_of "$1/lock"
case $ku_owner in
*" $2")
    if ku_any_alive "$1/${ku_owner%% *}/$2"; then
        die 73 "a job of this upgrade still runs: $ku_living"
    fi
    ku_release "$1" "$ku_owner"
    say unlocked "$2"
    ;;
*) say kept "$ku_owner" ;;
esac
