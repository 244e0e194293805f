# shellcheck shell=sh
# needs: km.sh
# prove_by_km.sh ARCHIVE IMAGE NETWORK: a backup of km restored beside the database it was taken from, under another name.
# Standard input is km's environment, which says where. Exit codes 65 and 66 as in prove_dump.sh.
archive=$1
work=$archive.proof.d
log=$archive.proof.log
[ -e "$archive" ] || die 65 "gone: there is no $archive (any more)"
trap 'rm -rf "$work" "$log"' EXIT
km_unpack "$archive" "$work"
code=0
km "$2" "$3" "$work" "$log" restore --restore-folder "$km_dated" || code=$?
if grep -qi 'no space left' "$log"; then
    die 70 "No space left on device while $archive was restored into the scratch database"
fi
if grep -qi 'unauthorized\|not authorized' "$log"; then die 66 "$(km_said "$log")"; fi
if [ "$code" -ne 0 ]; then
    km_said "$log" >&2
    die 1 "km ended with $code"
fi
say restored "$(grep -c 'Restored' "$log" || :)"
