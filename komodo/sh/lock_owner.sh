# shellcheck shell=sh
# lock_owner.sh STATE: who holds this host's lock, as "<fleet> <change>". Changes nothing.
if [ -r "$1/lock/owner" ]; then
  IFS= read -r owner <"$1/lock/owner" || :
  say lock "$owner"
fi
