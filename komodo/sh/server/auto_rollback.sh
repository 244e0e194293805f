#!/bin/sh
# The automatic rollback timer of one upgrade on this machine: restores the Komodo agent with the restore.sh next to
# this script, unless the new version is confirmed in time. Needs no tool and no network. As root:
#
#     sh dead-man.sh state      show the timer, or how it ended
#     sh dead-man.sh disarm     stop the timer
#
# The upgrade itself calls `arm SECONDS PID` before it stops the agent; PID is the process that switches it. When the
# time is over, the timer waits while that process still runs, and does nothing if the agent's journal (or its container's log)
# shows a login of Core since its last start. A restart of the machine ends the timer; `state` then reports it as lost.
#
# dead-man/armed holds: token, end (seconds since 1970), duration, boot, PID, start of that process, how the timer
# waits. dead-man/ended holds: fired, failed, silent (it did nothing) or disarmed; the time; the token.
set -eu
umask 077
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
state=$here/dead-man
tab=$(printf '\t')
scope=$(sed -n "s/^scope$tab//p" "$here/restore.list" 2>/dev/null) || scope=
# needs: lib/user_unit.sh
use_manager "$scope"

fail() {
  echo "dead-man.sh: $*" >&2
  exit 1
}
# Seconds that do not depend on the clock, which may be set.
ticks() { cut -d. -f1 /proc/uptime 2>/dev/null || date +%s; }
started() { # PID: prints its start time, "-" if that is unknown, nothing if it has ended
  if [ -r /proc/self/stat ]; then
    sed 's/^.*) //' "/proc/$1/stat" 2>/dev/null | cut -d' ' -f20 || :
  elif kill -0 "$1" 2>/dev/null; then
    echo -
  fi
}
# A restarted container keeps the boot id of its machine, but its first process is a new one.
boot() { echo "$(cat /proc/sys/kernel/random/boot_id 2>/dev/null || echo -)/$(started 1)"; }
lives() { [ -n "$1" ] && [ "$1" != - ] && [ "$(started "$1")" = "$2" ]; }
read_timer() { # sets token and the rest; token "": no timer is armed
  token='' over='' seconds='' booted='' pid='' since='' how=''
  if [ -f "$state/armed" ]; then
    read -r token over seconds booted pid since how <"$state/armed" || :
  fi
}
write() { # NAME LINE
  printf '%s\n' "$2" >"$state/$1.new.$$"
  mv -f -- "$state/$1.new.$$" "$state/$1"
}

# Stops the timer, and waits for a rollback that it runs right now. A later one finds no timer.
stop_timer() {
  read_timer
  if [ -n "$token" ]; then
    rm -f -- "$state/armed"
    if [ "$how" = systemd ]; then systemctl stop "komodo-upgrade-dead-man-$token.timer" 2>/dev/null || :; fi
  fi
  waited=0
  while [ -d "$state/firing" ]; do
    who='' when=''
    if [ -f "$state/firing/pid" ]; then read -r who when <"$state/firing/pid" || :; fi
    if ! lives "$who" "$when" && [ "$waited" -ge 2 ]; then
      # It was killed, or the machine was restarted: the next restore.sh finishes its work.
      rm -rf -- "$state/firing"
      break
    fi
    waited=$((waited + 1))
    [ "$waited" -le 900 ] || fail "a rollback has been running for 15 minutes: see $state/log"
    sleep 1
  done
}

arm() { # SECONDS PID
  mkdir -p -- "$state"
  stop_timer
  rm -f -- "$state/ended"
  new=$(date +%s)-$$
  line="$new $(($(date +%s) + $1)) $1 $(boot) ${2:--} $(if [ -n "${2:-}" ]; then started "$2"; else echo -; fi)"
  if command -v systemd-run >/dev/null 2>&1 && systemd-run ${ku_manager:+"$ku_manager"} --quiet --collect \
    --unit="komodo-upgrade-dead-man-$new" --description="restores the Komodo agent unless Core confirms it" \
    --on-active="$1" --timer-property=AccuracySec=1s --setenv=PATH="$PATH" \
    sh "$here/dead-man.sh" fire "$new" </dev/null >/dev/null 2>&1; then
    write armed "$line systemd"
  elif [ -n "${INVOCATION_ID:-}" ]; then
    # Started by systemd: it ends background processes together with this one.
    fail "systemd-run does not take a timer; nothing is armed"
  else
    write armed "$line detached"
    if command -v setsid >/dev/null 2>&1; then
      setsid sh "$here/dead-man.sh" wait "$new" "$1" </dev/null >/dev/null 2>&1 &
    else
      nohup sh "$here/dead-man.sh" wait "$new" "$1" </dev/null >/dev/null 2>&1 &
    fi
  fi
}

wait_for() { # TOKEN SECONDS
  ends=$(($(ticks) + $2))
  while :; do
    read_timer
    [ "$token" = "$1" ] || exit 0
    left=$((ends - $(ticks)))
    [ "$left" -gt 0 ] || break
    [ "$left" -le 5 ] || left=5
    sleep "$left"
  done
}

logged_in() {
  container=$(sed -n "s/^container$tab//p" "$here/restore.list")
  if [ -n "$container" ]; then
    shown=$(docker inspect -f '{{.State.Running}} {{.State.StartedAt}}' "$container" 2>/dev/null) || return 1
    [ "${shown%% *}" = true ] || return 1
    docker logs --since "${shown#* }" "$container" 2>&1 | grep -q 'Logged in to Komodo Core'
    return
  fi
  unit=$(sed -n "s/^unit$tab//p" "$here/restore.list")
  run=$(systemctl show --no-pager -p InvocationID "$unit" | sed -n 's/^InvocationID=//p')
  [ -n "$run" ] && [ "$(systemctl is-active "$unit" 2>/dev/null || :)" = active ] &&
    journalctl -u "$unit" --no-pager -o cat "_SYSTEMD_INVOCATION_ID=$run" 2>/dev/null | grep -q 'Logged in to Komodo Core'
}

restore() { # tries three times: the cause of a failure may be temporary
  for pause in 10 10 0; do
    if RESTORE_BY_TIMER=1 sh "$here/restore.sh" >>"$state/log" 2>&1 </dev/null; then return 0; fi
    sleep "$pause"
  done
  return 1
}

fire() { # TOKEN
  waited=0
  while :; do
    read_timer
    [ "$token" = "$1" ] || exit 0
    # A switch that takes long is waited for; after an hour it counts as abandoned.
    if ! lives "$pid" "$since" || [ "$waited" -ge 3600 ]; then break; fi
    waited=$((waited + 1))
    sleep 1
  done
  mkdir -- "$state/firing" 2>/dev/null || exit 0
  echo "$$ $(started $$)" >"$state/firing/pid"
  read_timer
  if [ "$token" = "$1" ]; then
    if logged_in; then
      what=silent
    elif restore; then
      what=fired
    else
      what=failed
    fi
    write ended "$what $(date +%s) $1"
    rm -f -- "$state/armed"
  fi
  rm -rf -- "$state/firing"
}

show_state() {
  read_timer
  if [ -d "$state/firing" ]; then
    echo "firing$tab$(date +%s)"
  elif [ -n "$token" ] && [ "$booted" != "$(boot)" ]; then
    echo "lost$tab$over"
  elif [ -n "$token" ]; then
    echo "armed$tab$over"
  elif [ -f "$state/ended" ]; then
    read -r what when _ <"$state/ended"
    echo "$what$tab$when"
  else
    echo "none$tab"
  fi
}

case ${1:-} in
  arm)
    arm "$2" "${3:-}"
    show_state
    ;;
  disarm)
    if [ ! -d "$state" ]; then
      show_state
      exit 0
    fi
    read_timer
    was=$token
    stop_timer
    ended=
    if [ -f "$state/ended" ]; then read -r _ _ ended <"$state/ended" || :; fi
    if [ -n "$was" ] && [ "$ended" != "$was" ]; then write ended "disarmed $(date +%s) $was"; fi
    show_state
    ;;
  state) show_state ;;
  wait)
    wait_for "$2" "$3"
    fire "$2"
    ;;
  fire) fire "$2" ;;
  *)
    echo "usage: sh dead-man.sh state|disarm" >&2
    exit 2
    ;;
esac
