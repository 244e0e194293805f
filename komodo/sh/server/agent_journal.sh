# shellcheck shell=sh
# needs: lib/user_unit.sh
# params: unit invocation? delay? scope?
# The state of the agent's unit and the journal of one of its runs, after `delay` seconds. Without `invocation`: of the
# run that is current then. The journal's lines come last and uncleaned; the reader cleans them. Reads only.
use_manager "$scope"
[ -z "$delay" ] || sleep "$delay" 2>/dev/null || sleep 1
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
