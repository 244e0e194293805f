# shellcheck shell=sh
# needs: jobs.sh
# held.sh STATE: who holds this host's lock, since when, when it was last used, and whether one of its jobs runs. Reads
# only; says nothing where nobody holds it.
ku_owner_of "$1/lock"
[ -n "$ku_owner" ] || exit 0
say owner "$ku_owner"
say since "$ku_since"
say used "$(stat -c %Y "$1/lock/owner")"
if ku_any_alive "$1/${ku_owner%% *}/${ku_owner#* }"; then say job "$ku_living"; fi
if ku_lock_expired "$1/lock"; then say expired yes; fi
