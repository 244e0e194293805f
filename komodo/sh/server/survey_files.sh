# shellcheck shell=sh
# needs: lib/files.sh
# params: state_dir binary? suffix? limit?
# survey_files.sh CONFIG…: the agent's files. Reads only. The text of the n-th config is printed as text.n, in base64,
# unless it has more than `limit` bytes. A CONFIG that is a folder is searched as the agent does (names that match
# *config.*). Without `suffix`, which the upgrade guide appends to the names of saved files: only the free space.
number=0

# nearest DIR: sets $at to DIR, or to the nearest folder above it that exists
nearest() {
  at=${1:-/}
  while [ ! -d "$at" ]; do
    at=${at%/*}
    at=${at:-/}
  done
}

# free_space KEY LINES: prints the free bytes from the first of these lines of df
free_space() {
  # shellcheck disable=SC2086
  set -- "$1" ${2%%"$ku_line_break"*}
  say "$1" "$(($5 * 1024))"
}

nearest "$state_dir"
above=$at
if [ -n "$suffix" ]; then
  look_up "$state_dir" "$@" ${binary:+"$binary"}
  # What root runs later is stored there.
  require_root_only "$state_dir"
fi
nearest "${binary%/*}"
frees=$(df -Pk "$above" "$at")
frees=${frees#*"$ku_line_break"}
if [ -n "$binary" ]; then
  free_space free_binary "${frees#*"$ku_line_break"}"
  if [ -n "$suffix" ] && [ -f "$binary" ]; then
    ku_walk "$binary"
    say binary_real "$ku_real"
    file_digest "$binary"
    say binary_sha256 "$sha256"
    facts_of "$binary"
    say binary_bytes "$ku_f_size"
    may_run "$binary"
    in_one_line "$(run_program "$binary" --version | head -n 3 || :)"
    say binary_version "$line "
    say_foreign "$binary"
  fi
fi
free_space free_state "$frees"
[ -n "$suffix" ] || exit 0
# Identifies the folder and its machine: equal for two names of one machine.
boot=
read -r boot 2>/dev/null </proc/sys/kernel/random/boot_id || :
facts_of "$above" || die 71 "$above cannot be read"
say state_place "$boot $ku_f_inode ${state_dir#"$above"}"

# config_file ORIGIN PATH
config_file() {
  ku_walk "$2"
  real=$ku_real
  file_digest "$2"
  digest_now=$sha256
  sha256=
  if [ -e "$real.$suffix" ]; then file_digest "$real.$suffix"; fi
  say file "$1$tab$real$tab$digest_now$tab$sha256"
  say_foreign "$real"
  number=$((number + 1))
  facts_of "$2" || look_up "$2"
  facts_of "$2" || die 1 "$2 is gone"
  if [ "$ku_f_size" -le "$limit" ]; then
    # The digest has shown that it can be read.
    ku_identity "$2"
    if [ -z "$ku_uid" ]; then text=$(base64 <"$2"); else text=$(read_as_owner "$2" | base64); fi
    say "text.$number" "$text"
  fi
}

for config in "$@"; do
  if [ -d "$config" ]; then
    if [ -e "$config/.peripheryinclude" ]; then say include "$config/.peripheryinclude"; fi
    for file in "$config"/*config.* "$config"/.*config.*; do
      # The agent ignores files with other suffixes (a backup: periphery.config.toml.bak_v1), with a warning, and
      # follows no link in this folder.
      [ ! -L "$file" ] || continue
      case $file in *.toml | *.yaml | *.yml | *.json) if [ -f "$file" ]; then config_file "$config" "$file"; fi ;; esac
    done
  elif [ -f "$config" ]; then
    config_file "$config" "$config"
  else
    say missing "$config"
  fi
done
