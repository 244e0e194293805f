# shellcheck shell=sh
# needs: lib/jobs.sh
# params: state fleet change patience
# invalidate.sh FOLDER…: takes the lock, waits up to `patience` seconds for jobs under the FOLDERs, stops those that
# still run, and renames each FOLDER, so that none of its jobs counts as done.
mkdir -p "$state"
ku_lock "$state" "$fleet" "$change"

# A job is FOLDER itself or one or two levels below it.
running_below() { # FOLDER…
  for folder; do
    for each in "$folder"/pid "$folder"/*/pid "$folder"/*/*/pid; do
      [ -e "$each" ] || continue
      ku_state_of "${each%/pid}"
      [ "$ku_state" != running ] || return 0
    done
  done
  return 1
}

send_signal() { # SIGNAL
  if [ "$ku_pgid" = "$ku_pid" ]; then
    kill -s "$1" -- "-$ku_pgid" 2>/dev/null || :
  else
    kill -s "$1" "$ku_pid" 2>/dev/null || :
  fi
}

forced=0
while running_below "$@"; do
  printf 'life\t%s\n' "$patience"
  if [ "$patience" -le 0 ]; then
    if [ "$forced" -lt 10 ]; then send_signal TERM; else send_signal KILL; fi
    forced=$((forced + 1))
    [ "$forced" -le 20 ] || die 1 "a job could not be stopped: ${each%/pid} (process $ku_pid)"
  fi
  patience=$((patience - 1))
  sleep 1
done
for folder; do
  if [ -d "$folder" ]; then
    ku_set_aside "$folder" invalid
    say invalidated "$folder.invalid.$ku_number"
  fi
done
