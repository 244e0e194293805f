# shellcheck shell=sh
# needs: lib/jobs.sh
# params: state
# Who holds this host's lock, since when, when it was last used, and whether one of its jobs runs. Prints nothing if the
# lock is free. Reads only.
ku_owner_of "$state/lock"
[ -n "$ku_owner" ] || exit 0
say owner "$ku_owner"
say since "$ku_since"
say used "$(stat -c %Y "$state/lock/owner")"
if ku_any_alive "$state/${ku_owner%% *}/${ku_owner#* }"; then say job "$ku_living"; fi
if ku_lock_expired "$state/lock"; then say expired yes; fi
