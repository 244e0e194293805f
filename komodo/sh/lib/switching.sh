# shellcheck shell=sh
# What switch_agent.sh and switch_by_script.sh share. Uses their parameters.
# The file $mark holds the run before the switch: its invocation, and when it was stopped (hundredths of a second since
# boot).
# uptime: sets $now, in hundredths of a second since boot
uptime() {
  read -r now _ </proc/uptime
  now=${now%.*}${now#*.}
}

# unit_state: sets $active, $invocation and $restarts
unit_state() {
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

# write_config: standard input becomes the content of $config
write_config() {
  replace_file /dev/stdin "$config" "$base" "$result"
  say config "$result"
}

# write_key: $core_key becomes the content of $key_file, in the form that the agent reads and replaces
write_key() {
  folder=${key_file%/*}
  for missing in "${folder%/*}" "$folder"; do
    [ -d "$missing" ] || as_owner "$missing" make_folder "$missing"
  done
  pem="-----BEGIN PUBLIC KEY-----$ku_line_break$core_key$ku_line_break-----END PUBLIC KEY-----"
  if [ ! -f "$key_file" ] || [ "$(read_as_owner "$key_file")" != "$pem" ]; then
    printf '%s\n' "$pem" | as_owner "$key_file" write_new "$key_file"
  fi
  say key_file "$key_file"
}

# note_mark INVOCATION: records that this run existed until now. An empty mark, left by a killed call, does not count.
note_mark() {
  uptime
  # The next call would read an incomplete mark.
  printf '%s %s\n' "$1" "$now" >"$mark" || {
    rm -f -- "$mark"
    die 1 "$mark could not be written; nothing was switched"
  }
}

# remember: sets $before and $stopped, which stay the same when the script is run again
remember() {
  # From here on this folder has something to restore (again).
  [ ! -e "${mark%/*}/restored-at" ] || rm -f -- "${mark%/*}/restored-at"
  if [ ! -s "$mark" ]; then
    unit_state
    note_mark "${invocation:-none}"
  fi
  read -r before stopped <"$mark"
}

# stopping: records that the remembered run ends now
stopping() {
  note_mark "$before"
  stopped=$now
}

# new_run [stopped]: starts the unit, unless a run later than the remembered one exists; `stopped`: this call has just
# stopped it, so there is none
new_run() {
  if [ -n "${1:-}" ]; then active=inactive invocation=; else unit_state; fi
  if [ "$active" != active ] || [ "${invocation:-none}" = "$before" ]; then
    case $active in inactive | failed) ;; *) systemctl stop "$unit" || : ;; esac
    # systemd allows five starts in ten seconds; those of an earlier attempt must not count.
    systemctl reset-failed "$unit" 2>/dev/null || :
    # Whether the start succeeded is decided by the journal, below.
    systemctl start "$unit" || :
  fi
  say started_at "$(date -u +%s)"
}

# await_run SECONDS: waits until the journal of the new run has version, config and address (its own, or where it
# connects to), or cannot get them any more. The reader evaluates the journal; here it only ends the waiting.
await_run() {
  # Not by the clock, which may be set meanwhile.
  uptime
  ends=$((now + 100 * $1))
  while :; do
    unit_state
    if [ -n "$invocation" ] && [ "$invocation" != "$before" ]; then
      journal=$(journalctl -u "$unit" --no-pager -o cat "_SYSTEMD_INVOCATION_ID=$invocation" 2>/dev/null) || :
      case $journal in
        # Colours may occur between any two words.
        *"Komodo Periphery version:"*"v$version"*"PeripheryConfig"*"starting on "* | \
          *"Komodo Periphery version:"*"v$version"*"PeripheryConfig"*"Initiating outbound connection"*)
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
  # After a restart of the machine the uptime is smaller, and the downtime unknown.
  downtime=$((now > stopped ? now - stopped : 0))
  say downtime "$((downtime / 100)).$((downtime / 10 % 10))$((downtime % 10))"
  say invocation "$invocation"
}
