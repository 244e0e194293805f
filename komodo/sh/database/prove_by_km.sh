# shellcheck shell=sh
# needs: lib/km.sh
# params: archive image network
# Restores a backup of km under another database name, next to the database that it was taken from. Standard input is
# km's environment, which says where. Exit codes 65 and 66 as in prove_dump.sh.
work=$archive.proof.d
log=$archive.proof.log
[ -e "$archive" ] || die 65 "gone: $archive does not exist"
trap 'rm -rf "$work" "$log"' EXIT
km_unpack "$archive" "$work"
code=0
km "$image" "$network" "$work" "$log" restore --restore-folder "$km_dated" || code=$?
if grep -qi 'no space left' "$log"; then
  die 70 "No space left on device while $archive was restored into the scratch database"
fi
if grep -qi 'unauthorized\|not authorized' "$log"; then die 66 "$(km_output "$log")"; fi
if [ "$code" -ne 0 ]; then
  km_output "$log" >&2
  die 1 "km ended with $code"
fi
say restored "$(grep -c 'Restored' "$log" || :)"
