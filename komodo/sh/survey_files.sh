# shellcheck shell=sh
# survey_files.sh STATE_DIR GUIDE_SUFFIX BINARY CONFIG...: the agent's files. Changes nothing.
# GUIDE_SUFFIX "-": only how much room there is. BINARY may be empty; a CONFIG that is a folder is looked into as the agent does (names matching *config.*).
state=$1
suffix=$2
binary=$3
shift 3
tab=$(printf '\t')

# nearest DIR: DIR, or the closest folder above it that exists
nearest() {
  at=$1
  while [ ! -d "$at" ]; do at=$(dirname -- "$at"); done
  printf '%s\n' "$at"
}
free() { df -Pk "$(nearest "$1")" | awk 'NR == 2 { printf "%.0f\n", $4 * 1024 }'; }

if [ -n "$binary" ]; then
  say free_binary "$(free "$(dirname -- "$binary")")"
  if [ "$suffix" != - ] && [ -f "$binary" ]; then
    say binary_real "$(readlink -f "$binary")"
    say binary_sha256 "$(sha256_of "$binary")"
    say binary_bytes "$(wc -c <"$binary" | tr -d ' ')"
    say binary_version "$("$binary" --version 2>&1 </dev/null | head -n 3 | tr '\n' ' ' || :)"
  fi
fi
say free_state "$(free "$state")"
# Which folder of which machine that is: the same for two names of one machine.
above=$(nearest "$state")
say state_place "$(cat /proc/sys/kernel/random/boot_id 2>/dev/null || :) $(stat -c %d:%i "$above") ${state#"$above"}"

# one ORIGIN PATH
one() {
  real=$(readlink -f "$2" 2>/dev/null || printf '%s' "$2")
  say file "$1$tab$real$tab$(sha256_of "$2")$tab$(sha256_of "$real.$suffix")"
}

for config in "$@"; do
  if [ -d "$config" ]; then
    if [ -e "$config/.peripheryinclude" ]; then say include "$config/.peripheryinclude"; fi
    for file in "$config"/*config.* "$config"/.*config.*; do
      # Whatever has another suffix (a backup: periphery.config.toml.bak_v1) the agent leaves out with a warning.
      case $file in *.toml | *.yaml | *.yml | *.json) if [ -f "$file" ]; then one "$config" "$file"; fi ;; esac
    done
  elif [ -f "$config" ]; then
    one "$config" "$config"
  else
    say missing "$config"
  fi
done
