# shellcheck shell=sh
# needs: switching.sh
# switch_agent.sh MARK UNIT BINARY OLD_SHA STAGED NEW_SHA VERSION WAIT CONFIG BASE_SHA RESULT_SHA DEAD_MAN
# Config in place, then stop, rename, start, and wait for the new run's journal. The new config's text comes on standard
# input (CONFIG "": none). DEAD_MAN: seconds after which the host puts itself back, 0: never. Every sub-step looks whether
# it is done already: the script may be killed at any instruction and run again.
mark=$1
unit=$2
binary=$3
old=$4
staged=$5
new=$6
version=$7
wait=$8
shift 8
arm "${4:-0}"
beside=$(dirname -- "$binary")/.$(basename -- "$binary").komodo-upgrade

# 1. All that can be checked and copied is, while the old agent still runs.
now=$(sha256_of "$binary")
if [ "$now" != "$new" ]; then
  [ "$now" = "$old" ] || die 72 "$binary is not any more what was planned"
  if [ "$(sha256_of "$beside")" != "$new" ]; then
    [ "$(sha256_of "$staged")" = "$new" ] || die 72 "$staged is not any more what was staged"
    cp -- "$staged" "$beside"
    [ "$(sha256_of "$beside")" = "$new" ] || die 70 "$beside was not written whole"
  fi
  # Also for a copy that an earlier call left: it may have been ended right after the copying.
  chmod "$(stat -L -c '%a' "$binary")" "$beside"
  chown "$(stat -L -c '%u:%g' "$binary")" "$beside" 2>/dev/null || [ "$(id -u)" != 0 ] || die 71 "cannot chown $beside"
  if command -v chcon >/dev/null 2>&1; then chcon --reference="$binary" "$beside" 2>/dev/null || :; fi
  fsync_file "$beside"
fi
remember
if [ -n "$1" ]; then write_config "$1" "$2" "$3"; fi

# 2. The switch.
if [ "$(sha256_of "$binary")" != "$new" ]; then
  printf '%s %s\n' "$before" "$(clock)" >"$mark.new"
  mv -f -- "$mark.new" "$mark"
  read -r before stopped <"$mark"
  systemctl stop "$unit"
  mv -f -- "$beside" "$binary"
fi
rm -f -- "$beside"
new_run
await_run "$wait"
