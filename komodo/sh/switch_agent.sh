# shellcheck shell=sh
# needs: switching.sh
# needs: beside.sh
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
beside_of "$binary"
trap '[ ! -e "$beside" ] || rm -f -- "$beside"' EXIT

# 1. All that can be checked and copied is, while the old agent still runs; most of it was when the binary was staged.
switched=
if ! sealed "$staged" "$binary" "$old" "$new"; then
  digest "$binary"
  if [ "$sha256" = "$new" ]; then
    switched=yes
  else
    [ "$sha256" = "$old" ] || die 72 "$binary is not any more what was planned"
    digest "$staged"
    [ "$sha256" = "$new" ] || die 72 "$staged is not any more what was staged"
    lay_beside "$staged" "$binary" "$new"
  fi
fi
remember
if [ -n "$1" ]; then write_config "$1" "$2" "$3"; fi

# 2. The switch.
if [ -z "$switched" ]; then
  stopping
  systemctl stop "$unit"
  mv -f -- "$beside" "$binary"
  new_run stopped
else
  new_run
fi
await_run "$wait"
