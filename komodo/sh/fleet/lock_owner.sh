# shellcheck shell=sh
# params: state_dir
# Who holds this host's lock, as "<fleet> <run>". Reads only.
if [ -r "$state_dir/lock/owner" ]; then
  IFS= read -r owner <"$state_dir/lock/owner" || :
  say lock "$owner"
fi
