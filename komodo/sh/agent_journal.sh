# shellcheck shell=sh
# agent_journal.sh UNIT INVOCATION [SECONDS]: the unit's state and the journal of one of its runs, SECONDS from now. Changes
# nothing. INVOCATION "" is the run of that moment. Its lines come last and as they are: whoever reads them cleans them.
unit=$1
invocation=${2:-}

[ -z "${3:-}" ] || sleep "$3" 2>/dev/null || sleep 1
shown=$(systemctl show --no-pager -p ActiveState,SubState,NRestarts,InvocationID,MainPID,ExecMainStatus,Result "$unit") || :
say show "$shown"
if [ -z "$invocation" ]; then
  value_of InvocationID "$shown"
  invocation=$value
fi
say invocation "$invocation"
say now "$(date -u +%s)"
if [ -n "$invocation" ]; then
  echo lines:
  journalctl -u "$unit" --no-pager -o cat "_SYSTEMD_INVOCATION_ID=$invocation" -n 3000 2>/dev/null || :
fi
