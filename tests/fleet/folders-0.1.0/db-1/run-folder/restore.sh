#!/bin/sh
# Puts this machine's Komodo agent back to how it was before the upgrade, and proves by its journal that it runs.
# Needs no tool and no network. As root:
#
#     sh restore.sh --dry-run     show what would be done
#     sh restore.sh               do it
#
# Safe to run again at any time, also when nothing was changed. What belongs where is written in restore.list beside
# this script; nothing else on the machine is touched. Exit code 0: the old version runs.
set -eu
umask 077
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
list=$here/restore.list
pending=$here/restore.pending
tab=$(printf '\t')
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
sha() { if [ -f "$1" ]; then sha256sum <"$1" | cut -d' ' -f1; fi; }
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

# The timer that would do the same must not do it beside this; if it is at it already, it is waited for.
if [ -z "$dry${RESTORE_BY_TIMER:-}" ] && [ -f "$here/dead-man.sh" ]; then
  sh "$here/dead-man.sh" disarm >/dev/null || fail "the dead-man timer could not be disarmed"
fi

# 1. Is every saved file still what was saved? Else nothing is touched.
files | while IFS="$tab" read -r _ kind digest _ _ name path; do
  [ "$(sha "$here/files/$name")" = "$digest" ] ||
    fail "$here/files/$name is not the $kind that was saved from $path; nothing was touched"
done

# 2. What differs?
changed=$(files | while IFS="$tab" read -r _ kind digest _ _ _ path; do
  if [ "$(sha "$path")" != "$digest" ]; then printf '%s ' "$kind"; fi
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
    if [ "$(sha "$path")" = "$digest" ]; then
      echo "would leave $path: it is as it was"
    else
      echo "would put back $kind $path ($mode $owner) from $here/files/$name"
    fi
  done
  if [ -n "$changed" ] || [ -f "$pending" ]; then
    echo "would stop and start $unit"
  elif [ -z "$running" ]; then
    echo "would start $unit again: v$version does not run"
  else
    echo "would leave $unit running: v$version runs"
  fi
  if [ -f "$here/dead-man/armed" ]; then echo "would disarm the dead-man timer"; fi
  exit 0
fi

# 3. Put back. Copies are made beside their places first, so that the agent is down only for renames.
unstage() {
  if [ -f "$here/staged/beside" ]; then
    while IFS= read -r file; do rm -f -- "$file"; done <"$here/staged/beside"
  fi
  rm -rf -- "$here/staged"
}
temporary() { printf '%s/.%s.komodo-restore\n' "$(dirname -- "$1")" "$(basename -- "$1")"; }
# However this ends, and whatever an earlier call left: no half of a copy stays beside its place.
sweep() {
  files | while IFS="$tab" read -r _ _ _ _ _ _ path; do rm -f -- "$(temporary "$path")"; done
}
trap sweep EXIT
if [ -n "$changed" ] || [ -f "$pending" ]; then
  : >"$pending"
  files | while IFS="$tab" read -r _ kind digest mode owner name path; do
    if [ "$(sha "$path")" = "$digest" ]; then continue; fi
    new=$(temporary "$path")
    mkdir -p -- "$(dirname -- "$path")"
    if ! cp -- "$here/files/$name" "$new" 2>/dev/null; then
      # A full disk must not stand in the way: what was staged for the upgrade can be had again.
      unstage
      cp -- "$here/files/$name" "$new" || fail "cannot write $new"
    fi
    chown "$owner" "$new" 2>/dev/null || [ "$(id -u)" != 0 ] || fail "cannot give $new to $owner"
    chmod "$mode" "$new"
    if command -v chcon >/dev/null 2>&1 && [ -e "$path" ]; then chcon --reference="$path" "$new" 2>/dev/null || :; fi
    [ "$(sha "$new")" = "$digest" ] || fail "$new was not written whole"
  done
  sync
  echo "stopping $unit"
  systemctl stop "$unit"
  files | while IFS="$tab" read -r _ kind digest _ _ _ path; do
    new=$(temporary "$path")
    if [ -f "$new" ]; then
      mv -f -- "$new" "$path"
      echo "put back $kind $path"
    fi
    [ "$(sha "$path")" = "$digest" ] || fail "$path could not be put back"
  done
  case " $changed" in *" unit "* | *" drop-in "*) systemctl daemon-reload ;; esac
  running=
fi
if [ -z "$running" ]; then
  echo "starting $unit"
  systemctl stop "$unit"
  # A new version that ended again and again has used up the starts that systemd allows; a stop does not give them back.
  systemctl reset-failed "$unit" 2>/dev/null || :
  systemctl start "$unit"
  rm -f -- "$pending"
else
  echo "nothing to put back: v$version runs"
fi

# put_back: noted here, and in the folders of later upgrades, which rested on what is in place again.
put_back() {
  later=
  for folder in "$(dirname -- "$here")"/*/; do
    folder=${folder%/}
    if [ "${folder##*/}" = "${here##*/}" ]; then later=1; fi
    if [ -n "$later" ] && [ -f "$folder/restore.list" ]; then date -u +%Y-%m-%dT%H:%M:%SZ >"$folder/restored-at"; fi
  done
}

# 4. The proof: its own journal.
# Not by the clock: it may be set meanwhile.
ticks() { cut -d. -f1 /proc/uptime 2>/dev/null || date +%s; }
ends=$(($(ticks) + wait))
while :; do
  said=$(says_version)
  if [ "$(active)" = active ] && { [ -z "$version" ] || [ -n "$said" ]; } && journal | grep -q 'starting on '; then
    put_back
    echo "proven: ${said:-$unit is active}"
    exit 0
  fi
  [ "$(ticks)" -lt "$ends" ] || break
  sleep 0.5 2>/dev/null || sleep 1
done
echo "restore.sh: the files are back, but within $wait s the journal of $unit did not say that v$version runs" >&2
echo "  see: journalctl -u $unit -n 50" >&2
exit 3
