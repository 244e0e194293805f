# shellcheck shell=sh
# may_write.sh USER FOLDER: says `not_writable` and the place where USER could not make FOLDER, or write into it. Says
# nothing where that cannot be told. Changes nothing.
PATH=$PATH:/usr/sbin:/sbin
user=$1
place=$2
while [ ! -e "$place" ]; do
  place=${place%/*}
  place=${place:-/}
done
if command -v runuser >/dev/null 2>&1 && runuser -u "$user" -- true 2>/dev/null </dev/null; then
  runuser -u "$user" -- test -w "$place" </dev/null || say not_writable "$place"
fi
