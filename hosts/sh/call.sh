# shellcheck shell=sh
# Runs one call attached. hosts/exec/protocol.py writes in front of it: ku_marker, KU_STAMP, ku_limit (seconds until the
# script is ended, 0: never), the script's words as "$@", and the script as the function ku_script. The rest of standard
# input is for the script.
# shellcheck disable=SC2154
LC_ALL=C
PATH="${PATH:-/usr/bin:/bin}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/snap/bin"
export LC_ALL PATH
umask 077

# The worker drops what login scripts printed before these lines.
printf '\n%s begin\n' "$ku_marker"
printf '\n%s begin\n' "$ku_marker" >&2

# Ends a process and all processes that it has started. They are stopped first, so that they start no others.
ku_end_tree() { # PID
  kill -s STOP "$1" 2>/dev/null
  for ku_entry in /proc/[0-9]*/stat; do
    ku_stat=
    { IFS= read -r ku_stat <"$ku_entry"; } 2>/dev/null || continue
    # shellcheck disable=SC2086
    set -- "$1" ${ku_stat##*) }
    if [ "${3:-}" = "$1" ]; then
      ku_entry=${ku_entry#/proc/}
      (ku_end_tree "${ku_entry%/stat}")
    fi
  done
  kill -s KILL "$1" 2>/dev/null
}

# Sets ku_start to the start time of a process; empty if it has ended.
ku_since() { # PID
  ku_start=
  ku_stat=
  { IFS= read -r ku_stat <"/proc/$1/stat"; } 2>/dev/null || return 0
  # shellcheck disable=SC2086
  set -- ${ku_stat##*) }
  [ $# -lt 20 ] || { shift 19 && ku_start=$1; }
}

# The end of a connection ends no process, so the host itself ends the script when its time is over.
ku_watch() { # PID
  ku_watched=$1
  # $! is set when the sleep begins; a variable would be set a moment later. KILL, because a shell that is about to
  # become the sleep may ignore other signals.
  trap '[ "$!" = "$ku_watched" ] || kill -s KILL "$!" 2>/dev/null; exit 0' TERM
  ku_since "$1"
  ku_began=$ku_start
  sleep "$ku_limit" &
  wait "$!"
  # If our shell was killed, another process may have this number by now.
  ku_since "$1"
  if [ -n "$ku_began" ] && [ "$ku_start" = "$ku_began" ]; then ku_end_tree "$1"; fi
}

# In a child of this shell, without exec: a process list shows neither the script nor its words.
if [ "$ku_limit" -gt 0 ]; then
  exec 3<&0
  (
    exec 3<&-
    set -eu
    ku_script "$@"
  ) <&3 &
  ku_script_pid=$!
  exec 3<&-
  (
    # With exec: a function with redirections keeps the old streams open, and so the channel.
    exec </dev/null >/dev/null 2>&1
    ku_watch "$ku_script_pid"
  ) &
  ku_dog=$!
  wait "$ku_script_pid"
  ku_rc=$?
  kill "$ku_dog" 2>/dev/null
else
  (
    set -eu
    ku_script "$@"
  )
  ku_rc=$?
fi
printf '\n%s end %s\n' "$ku_marker" "$ku_rc" >&2
printf '\n%s end %s\n' "$ku_marker" "$ku_rc"
exit 0
