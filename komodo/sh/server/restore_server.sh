#!/bin/sh
# Restores the Komodo agent of this machine to its state before the upgrade, and proves by its journal that it runs.
# Needs no tool and no network. As root:
#
#     sh restore.sh --dry-run     show what would be done
#     sh restore.sh               do it
#
# Safe to run again at any time, also when nothing was changed. restore.list next to this script says what belongs
# where; nothing else on the machine is touched. Exit code 0: the old version runs.
set -eu
umask 077
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
list=$here/restore.list
pending=$here/restore.pending
dry=
case ${1:-} in
  '') ;;
  --dry-run) dry=1 ;;
  *)
    echo "usage: sh restore.sh [--dry-run]" >&2
    exit 2
    ;;
esac

fail() {
  echo "restore.sh: $*" >&2
  exit 1
}
# library begin
# needs: lib/prelude.sh
# needs: lib/files.sh
# library end
ku_carried=$(sed -n '/^# library begin$/,/^# library end$/p' "$0")
die() { fail "$2"; }
require_root_only "$here"
scope=$(sed -n "s/^scope$tab//p" "$list")
# needs: lib/user_unit.sh
use_manager "$scope"
unit=
version=
wait=60
while IFS="$tab" read -r key value rest; do
  case $key in
    format) [ "$value" = 1 ] || fail "restore.list has format $value, this script knows 1" ;;
    unit) unit=$value ;;
    version) [ "$value" = - ] || version=$value ;;
    wait) wait=$value ;;
    *) : "$rest" ;;
  esac
done <"$list"
[ -n "$unit" ] || fail "restore.list names no unit"
files() { grep "^file$tab" "$list" || :; }

# The automatic rollback timer must not do the same at the same time. If it has begun, it is waited for.
if [ -z "$dry${RESTORE_BY_TIMER:-}" ] && [ -f "$here/dead-man.sh" ]; then
  sh "$here/dead-man.sh" disarm >/dev/null || fail "the automatic rollback timer could not be disarmed"
fi

set --
while IFS="$tab" read -r _ _ _ _ _ _ path; do set -- "$@" ${path:+"$path"}; done <<END
$(files)
END
look_up "$@"

# 1. Is every saved file still what was saved? Else nothing is touched.
files | while IFS="$tab" read -r _ kind digest _ _ name path; do
  [ "$(sha256_of "$here/files/$name")" = "$digest" ] ||
    fail "$here/files/$name is not the $kind that was saved from $path; nothing was touched"
done

# 2. What differs?
changed=$(files | while IFS="$tab" read -r _ kind digest _ _ _ path; do
  file_digest "$path"
  if [ "$sha256" != "$digest" ]; then printf '%s ' "$kind"; fi
done)
invocation() { systemctl show --no-pager -p InvocationID "$unit" | sed -n 's/^InvocationID=//p'; }
active() { systemctl is-active "$unit" 2>/dev/null || :; }
journal() {
  journalctl -u "$unit" --no-pager -o cat "_SYSTEMD_INVOCATION_ID=$(invocation)" 2>/dev/null |
    tr -d '\033' | sed 's/\[[0-9;]*m//g' || :
}
says_version() {
  if [ -n "$version" ]; then journal | grep -F "Komodo Periphery version: v$version" | tail -n 1; fi
}
running=
if [ "$(active)" = active ] && { [ -z "$version" ] || [ -n "$(says_version)" ]; }; then running=1; fi

if [ -n "$dry" ]; then
  files | while IFS="$tab" read -r _ kind digest mode owner name path; do
    file_digest "$path"
    if [ "$sha256" = "$digest" ]; then
      echo "would leave $path: it is as it was"
    else
      echo "would restore $kind $path ($mode $owner) from $here/files/$name"
    fi
  done
  if [ -n "$changed" ] || [ -f "$pending" ]; then
    echo "would stop and start $unit"
  elif [ -z "$running" ]; then
    echo "would start $unit again: v$version does not run"
  else
    echo "would leave $unit running: v$version runs"
  fi
  if [ -f "$here/dead-man/armed" ]; then echo "would disarm the automatic rollback timer"; fi
  exit 0
fi

# 3. Restore. Copies are made next to their places first, so that the agent is down only for renames.
unstage() {
  if [ -f "$here/staged/beside" ]; then
    while IFS= read -r file; do (as_owner "$file" remove_file "$file") || :; done <"$here/staged/beside"
  fi
  rm -rf -- "$here/staged"
}
# However this ends, and whatever an earlier call left: no unfinished copy stays.
sweep() {
  files | while IFS="$tab" read -r _ _ _ _ _ _ path; do as_owner "$path" sweep_new "$path"; done
}
trap 'sweep || :' EXIT
if [ -n "$changed" ] || [ -f "$pending" ]; then
  : >"$pending"
  sweep
  files | while IFS="$tab" read -r _ kind digest mode owner name path; do
    file_digest "$path"
    if [ "$sha256" = "$digest" ]; then continue; fi
    if ! (as_owner "$path" prepare_new "$path" "$mode" "$owner" "$digest") <"$here/files/$name"; then
      # A full disk must not prevent a rollback: what was staged for the upgrade can be made again.
      unstage
      as_owner "$path" prepare_new "$path" "$mode" "$owner" "$digest" <"$here/files/$name"
    fi
  done
  sync
  echo "stopping $unit"
  systemctl stop "$unit"
  files | while IFS="$tab" read -r _ kind digest _ _ _ path; do
    file_digest "$path"
    if [ "$sha256" != "$digest" ]; then
      as_owner "$path" commit_new "$path"
      echo "restored $kind $path"
      file_digest "$path"
    fi
    [ "$sha256" = "$digest" ] || fail "$path could not be restored"
  done
  case " $changed" in *" unit "* | *" drop-in "*) systemctl daemon-reload ;; esac
  running=
fi
if [ -z "$running" ]; then
  echo "starting $unit"
  systemctl stop "$unit"
  # A new version that crashed repeatedly has used up the starts that systemd allows; a stop does not reset their count.
  systemctl reset-failed "$unit" 2>/dev/null || :
  systemctl start "$unit"
  rm -f -- "$pending"
else
  echo "nothing to restore: v$version runs"
fi

# note_restored: recorded here, and in the folders of later upgrades, which were based on the version that was replaced.
note_restored() {
  later=
  for folder in "$(dirname -- "$here")"/*/; do
    folder=${folder%/}
    if [ "${folder##*/}" = "${here##*/}" ]; then later=1; fi
    if [ -n "$later" ] && [ -f "$folder/restore.list" ]; then date -u +%Y-%m-%dT%H:%M:%SZ >"$folder/restored-at"; fi
  done
}

# 4. The proof: its own journal.
# Not by the clock, which may be set meanwhile.
ticks() { cut -d. -f1 /proc/uptime 2>/dev/null || date +%s; }
ends=$(($(ticks) + wait))
while :; do
  line=$(says_version)
  if [ "$(active)" = active ] && { [ -z "$version" ] || [ -n "$line" ]; } && journal | grep -q -e 'starting on ' -e 'Initiating outbound connection'; then
    note_restored
    echo "proven: ${line:-$unit is active}"
    exit 0
  fi
  [ "$(ticks)" -lt "$ends" ] || break
  sleep 0.5 2>/dev/null || sleep 1
done
echo "restore.sh: the files are restored, but within $wait s the journal of $unit did not report that v$version runs" >&2
echo "  see: journalctl -u $unit -n 50" >&2
exit 3
