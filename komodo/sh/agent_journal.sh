# shellcheck shell=sh
# agent_journal.sh UNIT INVOCATION: the unit's state and the journal of one of its runs. Changes nothing.
# INVOCATION "" is the run of this moment. Lines are passed on as they are: whoever reads them cleans them.
unit=$1
invocation=${2:-}
tab=$(printf '\t')

systemctl show --no-pager -p ActiveState,SubState,NRestarts,InvocationID,MainPID,ExecMainStatus,Result "$unit" |
  sed "s/^/show$tab/"
if [ -z "$invocation" ]; then
  invocation=$(systemctl show --no-pager -p InvocationID "$unit" | sed -n 's/^InvocationID=//p')
fi
say invocation "$invocation"
say now "$(date -u +%s)"
if [ -n "$invocation" ]; then
  journalctl -u "$unit" --no-pager -o cat "_SYSTEMD_INVOCATION_ID=$invocation" -n 3000 2>/dev/null |
    sed "s/^/line$tab/" || :
fi
