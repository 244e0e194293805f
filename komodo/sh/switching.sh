# shellcheck shell=sh
# What switch_agent.sh and switch_by_script.sh share. Expects $unit, $mark and $version.
# MARK remembers the run that was there before the switch: invocation, seconds since boot when it was stopped.

beside=
trap 'rm -f -- "$mark.text" ${beside:+"$beside"}' EXIT

clock() { cut -d' ' -f1 /proc/uptime; }
property() { systemctl show --no-pager -p "$1" "$unit" | sed -n "s/^$1=//p"; }

# arm SECONDS: from now on the host puts itself back unless Core's login is confirmed in time; 0: it does not. One that is
# being put back right now is waited for, so this comes before any look at what is in place.
arm() {
  [ "$1" -gt 0 ] || return 0
  armed=$(sh "${mark%/*}/dead-man.sh" arm "$1" $$) || die 1 "the dead-man timer could not be armed; nothing was switched"
  say puts_itself_back "${armed##*"$(printf '\t')"}"
}

# write_config CONFIG BASE_SHA RESULT_SHA: the new text comes on standard input
write_config() {
  text=$mark.text
  cat >"$text"
  if [ "$(sha256_of "$1")" != "$3" ] && [ "$(sha256_of "$text")" != "$3" ]; then
    die 74 "the new text of $1 did not arrive whole; nothing was changed"
  fi
  replace_file "$text" "$1" "$2" "$3"
  rm -f -- "$text"
  say config "$3"
}

# remember: sets $before and $stopped; kept when the script is run again
remember() {
  # From here on this folder has something to put back (again).
  rm -f -- "$(dirname -- "$mark")/restored-at"
  if [ ! -s "$mark" ]; then
    before=$(property InvocationID)
    printf '%s %s\n' "${before:-none}" "$(clock)" >"$mark.new"
    mv -f -- "$mark.new" "$mark"
  fi
  read -r before stopped <"$mark"
}

# new_run: starts the unit unless a run younger than the remembered one is there already
new_run() {
  now=$(property InvocationID)
  if [ "$(property ActiveState)" != active ] || [ "${now:-none}" = "$before" ]; then
    systemctl stop "$unit" || :
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
  ends=$(($(date +%s) + $1))
  while :; do
    now=$(property InvocationID)
    if [ -n "$now" ] && [ "$now" != "$before" ]; then
      journal=$(journalctl -u "$unit" --no-pager -o cat "_SYSTEMD_INVOCATION_ID=$now" 2>/dev/null |
        tr -d '\033' | sed 's/\[[0-9;]*m//g' || :)
      case $journal in
        *"Komodo Periphery version: v$version"*"PeripheryConfig {"*"starting on "*)
          settled=yes
          break
          ;;
      esac
    fi
    settled=$(property ActiveState)
    case $settled in failed | inactive) break ;; esac
    if [ "$(property NRestarts)" -ge 3 ] 2>/dev/null; then
      settled=looping
      break
    fi
    if [ "$(date +%s)" -ge "$ends" ]; then
      settled=late
      break
    fi
    sleep 0.2 2>/dev/null || sleep 1
  done
  say settled "$settled"
  say silent "$(printf '%s %s\n' "$(clock)" "$stopped" | awk '{ printf "%.2f\n", ($1 > $2 ? $1 - $2 : 0) }')"
  say invocation "$(property InvocationID)"
}
