#!/bin/sh
# The dead-man timer of one upgrade on this machine: puts its Komodo agent back, by the restore.sh beside this script,
# unless somebody confirmed the new version in time. Needs no tool and no network. As root:
#
#     sh dead-man.sh state      what is armed, or what became of it
#     sh dead-man.sh disarm     not any more
#
# The upgrade itself says `arm SECONDS PID` before it stops the agent; PID is the process that switches it. When the time
# is over nothing is done while that process is still at it, nor when the agent's journal shows a login of Core since its
# last start. A restart of the machine ends the timer; `state` then says so.
#
# dead-man/armed holds: token, when it is over (seconds since 1970), for how long, boot, PID, its start, how it waits.
# dead-man/ended holds: fired, failed, silent or disarmed; when; the token.
set -eu
umask 077
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
state=$here/dead-man
tab=$(printf '\t')

fail() {
  echo "dead-man.sh: $*" >&2
  exit 1
}
# Seconds that no change of the clock can move.
ticks() { cut -d. -f1 /proc/uptime 2>/dev/null || date +%s; }
started() { # PID: when it was started, "-" where nobody can tell; empty: it is gone
  if [ -r /proc/self/stat ]; then
    sed 's/^.*) //' "/proc/$1/stat" 2>/dev/null | cut -d' ' -f20 || :
  elif kill -0 "$1" 2>/dev/null; then
    echo -
  fi
}
# A container that is started again keeps its machine's boot id, but its first process is another.
boot() { echo "$(cat /proc/sys/kernel/random/boot_id 2>/dev/null || echo -)/$(started 1)"; }
lives() { [ -n "$1" ] && [ "$1" != - ] && [ "$(started "$1")" = "$2" ]; }
look() { # sets token and the rest; token "": nothing is armed
  token='' over='' seconds='' booted='' pid='' since='' how=''
  if [ -f "$state/armed" ]; then
    read -r token over seconds booted pid since how <"$state/armed" || :
  fi
}
write() { # NAME LINE
  printf '%s\n' "$2" >"$state/$1.new.$$"
  mv -f -- "$state/$1.new.$$" "$state/$1"
}

# One that fires right now is waited for; a later one finds nothing armed any more.
quiet() {
  look
  if [ -n "$token" ]; then
    rm -f -- "$state/armed"
    if [ "$how" = systemd ]; then systemctl stop "komodo-upgrade-dead-man-$token.timer" 2>/dev/null || :; fi
  fi
  waited=0
  while [ -d "$state/firing" ]; do
    who='' when=''
    if [ -f "$state/firing/pid" ]; then read -r who when <"$state/firing/pid" || :; fi
    if ! lives "$who" "$when" && [ "$waited" -ge 2 ]; then
      # It was killed, or the machine was restarted: what it left half done is finished by whoever comes now.
      rm -rf -- "$state/firing"
      break
    fi
    waited=$((waited + 1))
    [ "$waited" -le 900 ] || fail "the agent is being put back since 15 minutes: see $state/log"
    sleep 1
  done
}

arm() { # SECONDS PID
  mkdir -p -- "$state"
  quiet
  rm -f -- "$state/ended"
  new=$(date +%s)-$$
  line="$new $(($(date +%s) + $1)) $1 $(boot) ${2:--} $(if [ -n "${2:-}" ]; then started "$2"; else echo -; fi)"
  if command -v systemd-run >/dev/null 2>&1 && systemd-run --quiet --collect \
    --unit="komodo-upgrade-dead-man-$new" --description="puts the Komodo agent back unless Core confirms it" \
    --on-active="$1" --timer-property=AccuracySec=1s --setenv=PATH="$PATH" \
    sh "$here/dead-man.sh" fire "$new" </dev/null >/dev/null 2>&1; then
    write armed "$line systemd"
  elif [ -n "${INVOCATION_ID:-}" ]; then
    # Run by systemd: what is left running here ends together with us.
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
    look
    [ "$token" = "$1" ] || exit 0
    left=$((ends - $(ticks)))
    [ "$left" -gt 0 ] || break
    [ "$left" -le 5 ] || left=5
    sleep "$left"
  done
}

logged_in() {
  unit=$(sed -n "s/^unit$tab//p" "$here/restore.list")
  run=$(systemctl show --no-pager -p InvocationID "$unit" | sed -n 's/^InvocationID=//p')
  [ -n "$run" ] && [ "$(systemctl is-active "$unit" 2>/dev/null || :)" = active ] &&
    journalctl -u "$unit" --no-pager -o cat "_SYSTEMD_INVOCATION_ID=$run" 2>/dev/null | grep -q 'Logged in to Komodo Core'
}

put_back() { # three times: what stood in the way may have passed
  for pause in 10 10 0; do
    if RESTORE_BY_TIMER=1 sh "$here/restore.sh" >>"$state/log" 2>&1 </dev/null; then return 0; fi
    sleep "$pause"
  done
  return 1
}

fire() { # TOKEN
  waited=0
  while :; do
    look
    [ "$token" = "$1" ] || exit 0
    # A switch that takes long is not a switch that was left alone; one that hangs for an hour is.
    if ! lives "$pid" "$since" || [ "$waited" -ge 3600 ]; then break; fi
    waited=$((waited + 1))
    sleep 1
  done
  mkdir -- "$state/firing" 2>/dev/null || exit 0
  echo "$$ $(started $$)" >"$state/firing/pid"
  look
  if [ "$token" = "$1" ]; then
    if logged_in; then
      what=silent
    elif put_back; then
      what=fired
    else
      what=failed
    fi
    write ended "$what $(date +%s) $1"
    rm -f -- "$state/armed"
  fi
  rm -rf -- "$state/firing"
}

say_state() {
  look
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
    say_state
    ;;
  disarm)
    if [ ! -d "$state" ]; then
      say_state
      exit 0
    fi
    look
    was=$token
    quiet
    ended=
    if [ -f "$state/ended" ]; then read -r _ _ ended <"$state/ended" || :; fi
    if [ -n "$was" ] && [ "$ended" != "$was" ]; then write ended "disarmed $(date +%s) $was"; fi
    say_state
    ;;
  state) say_state ;;
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
