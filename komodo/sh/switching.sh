# shellcheck shell=sh
# What switch_agent.sh and switch_by_script.sh share. Expects $unit, $mark and $version.
# MARK remembers the run that was there before the switch: invocation, hundredths of a second since boot when it was stopped.

# uptime: sets $now, hundredths of a second since boot
uptime() {
  read -r now _ </proc/uptime
  now=${now%.*}${now#*.}
}

# look: sets $active, $invocation and $restarts as they are at this moment
look() {
  active='' invocation='' restarts=''
  shown=$(systemctl show --no-pager -p ActiveState,InvocationID,NRestarts "$unit") || :
  while IFS='=' read -r key value; do
    case $key in
      ActiveState) active=$value ;;
      InvocationID) invocation=$value ;;
      NRestarts) restarts=$value ;;
    esac
  done <<END
$shown
END
}

# arm SECONDS: from now on the host puts itself back unless Core's login is confirmed in time; 0: it does not. One that is
# being put back right now is waited for, so this comes before any look at what is in place.
arm() {
  [ "$1" -gt 0 ] || return 0
  armed=$(sh "${mark%/*}/dead-man.sh" arm "$1" $$) || die 1 "the dead-man timer could not be armed; nothing was switched"
  say puts_itself_back "${armed##*"$(printf '\t')"}"
}

# write_config CONFIG BASE_SHA RESULT_SHA: the new text comes on standard input
write_config() {
  replace_file /dev/stdin "$1" "$2" "$3"
  say config "$3"
}

# note_mark INVOCATION: this run was there until now. An empty mark, of a call that was killed here, counts as none.
note_mark() {
  uptime
  # Half of a mark would be read by the next call.
  printf '%s %s\n' "$1" "$now" >"$mark" || {
    rm -f -- "$mark"
    die 1 "$mark could not be written; nothing was switched"
  }
}

# remember: sets $before and $stopped; kept when the script is run again
remember() {
  # From here on this folder has something to put back (again).
  [ ! -e "${mark%/*}/restored-at" ] || rm -f -- "${mark%/*}/restored-at"
  if [ ! -s "$mark" ]; then
    look
    note_mark "${invocation:-none}"
  fi
  read -r before stopped <"$mark"
}

# stopping: the remembered run ends now
stopping() {
  note_mark "$before"
  stopped=$now
}

# new_run [stopped]: starts the unit unless a run younger than the remembered one is there already; `stopped`: this call has
# just stopped it, so none is
new_run() {
  if [ -n "${1:-}" ]; then active=inactive invocation=; else look; fi
  if [ "$active" != active ] || [ "${invocation:-none}" = "$before" ]; then
    case $active in inactive | failed) ;; *) systemctl stop "$unit" || : ;; esac
    # Starts that an earlier attempt used up must not count against this one: systemd allows five in ten seconds.
    systemctl reset-failed "$unit" 2>/dev/null || :
    # A start that fails is judged by what the journal says, below.
    systemctl start "$unit" || :
  fi
  say started_at "$(date -u +%s)"
}

# await_run SECONDS: until the new run's journal has version, config and address, or it is clear that it never will.
# What the journal proves is judged by the reader; here it only ends the waiting.
await_run() {
  # Not by the clock: it may be set meanwhile.
  uptime
  ends=$((now + 100 * $1))
  while :; do
    look
    if [ -n "$invocation" ] && [ "$invocation" != "$before" ]; then
      journal=$(journalctl -u "$unit" --no-pager -o cat "_SYSTEMD_INVOCATION_ID=$invocation" 2>/dev/null) || :
      case $journal in
        # Colours may stand between any two words.
        *"Komodo Periphery version:"*"v$version"*"PeripheryConfig"*"starting on "*)
          settled=yes
          break
          ;;
      esac
    fi
    settled=$active
    case $settled in failed | inactive) break ;; esac
    if [ "${restarts:-0}" -ge 3 ] 2>/dev/null; then
      settled=looping
      break
    fi
    uptime
    if [ "$now" -ge "$ends" ]; then
      settled=late
      break
    fi
    sleep 0.2 2>/dev/null || sleep 1
  done
  say settled "$settled"
  uptime
  # After a restart of the machine its clock is behind: then nobody knows.
  silent=$((now > stopped ? now - stopped : 0))
  say silent "$((silent / 100)).$((silent / 10 % 10))$((silent % 10))"
  say invocation "$invocation"
}
