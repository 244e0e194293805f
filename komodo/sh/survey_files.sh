# shellcheck shell=sh
# survey_files.sh STATE_DIR GUIDE_SUFFIX BINARY LIMIT CONFIG...: the agent's files. Changes nothing. The n-th config's text
# comes along as text.n, in base64, unless it has more than LIMIT bytes.
# GUIDE_SUFFIX "-": only how much room there is. BINARY may be empty; a CONFIG that is a folder is looked into as the agent does (names matching *config.*).
state=$1
suffix=$2
binary=$3
limit=${4:-0}
[ $# -lt 4 ] || shift
shift 3
number=0

# nearest DIR: sets $at to DIR, or the closest folder above it that exists
nearest() {
  at=${1:-/}
  while [ ! -d "$at" ]; do
    at=${at%/*}
    at=${at:-/}
  done
}

# room KEY LINES: what is free, in bytes, by the first of df's lines
room() {
  # shellcheck disable=SC2086
  set -- "$1" ${2%%"$ku_line_break"*}
  say "$1" "$(($5 * 1024))"
}

nearest "$state"
above=$at
nearest "${binary%/*}"
frees=$(df -Pk "$above" "$at")
frees=${frees#*"$ku_line_break"}
if [ -n "$binary" ]; then
  room free_binary "${frees#*"$ku_line_break"}"
  if [ "$suffix" != - ] && [ -f "$binary" ]; then
    say binary_real "$(readlink -f "$binary")"
    digest "$binary"
    say binary_sha256 "$sha256"
    say binary_bytes "$(stat -L -c %s "$binary")"
    in_one_line "$("$binary" --version 2>&1 </dev/null | head -n 3 || :)"
    say binary_version "$line "
  fi
fi
room free_state "$frees"
[ "$suffix" != - ] || exit 0
# Which folder of which machine that is: the same for two names of one machine.
boot=
read -r boot 2>/dev/null </proc/sys/kernel/random/boot_id || :
say state_place "$boot $(stat -c %d:%i "$above") ${state#"$above"}"

# one ORIGIN PATH
one() {
  real=$(readlink -f "$2" 2>/dev/null) || real=$2
  digest "$2"
  mine=$sha256
  digest "$real.$suffix"
  say file "$1$tab$real$tab$mine$tab$sha256"
  number=$((number + 1))
  if [ "$(stat -L -c %s "$2")" -le "$limit" ]; then say "text.$number" "$(base64 <"$2")"; fi
}

for config in "$@"; do
  if [ -d "$config" ]; then
    if [ -e "$config/.peripheryinclude" ]; then say include "$config/.peripheryinclude"; fi
    for file in "$config"/*config.* "$config"/.*config.*; do
      # Whatever has another suffix (a backup: periphery.config.toml.bak_v1) the agent leaves out with a warning, and it
      # follows no link in there.
      [ ! -L "$file" ] || continue
      case $file in *.toml | *.yaml | *.yml | *.json) if [ -f "$file" ]; then one "$config" "$file"; fi ;; esac
    done
  elif [ -f "$config" ]; then
    one "$config" "$config"
  else
    say missing "$config"
  fi
done
