# shellcheck shell=sh
# params: user folder
# Prints `not_writable` and the place where `user` cannot make `folder`, or cannot write into it. Prints nothing where
# this cannot be determined. Reads only.
PATH=$PATH:/usr/sbin:/sbin
place=$folder
while [ ! -e "$place" ]; do
  place=${place%/*}
  place=${place:-/}
done
if [ "$(id -un)" = "$user" ]; then
  test -w "$place" || say not_writable "$place"
elif command -v runuser >/dev/null 2>&1 && runuser -u "$user" -- true 2>/dev/null </dev/null; then
  runuser -u "$user" -- test -w "$place" </dev/null || say not_writable "$place"
fi
