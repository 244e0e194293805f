# shellcheck shell=sh
# The staged binary under a second name next to the installed one, so that the switch is a rename.
# name_staged BINARY: sets $second, the second name.
name_staged() { second=${1%/*}/.${1##*/}.komodo-upgrade; }

# place_staged STAGED BINARY NEW_SHA: makes it, as a hard link, or as a copy on another file system or in a folder of
# another user, with BINARY's owner, mode and label.
place_staged() {
  name_staged "$2"
  # release_server.sh finds it by this list.
  printf '%s\n' "$second" >>"${1%/*}/beside"
  ku_identity "$2"
  if [ -n "$ku_uid" ]; then
    as_owner "$2" ku_place_copy "$2" "$second" "$3" <"$1"
    return
  fi
  [ ! -e "$second" ] || rm -f -- "$second"
  if ! ln -- "$1" "$second" 2>/dev/null; then
    sweep_new "$second"
    exclusive_temp "$second"
    if ! { cp -- "$1" "$ku_temp" && rename_file "$ku_temp" "$second"; }; then
      rm -f -- "$ku_temp"
      die 1 "$second could not be written; $2 runs as before"
    fi
    digest "$second"
    [ "$sha256" = "$3" ] || die 70 "$second was not written completely"
  fi
  both=$(stat -L -c '%u:%g %a' "$2" "$second")
  like=${both%%"$ku_line_break"*}
  if [ "$both" != "$like$ku_line_break$like" ]; then
    chown -h "${like% *}" "$second" 2>/dev/null || [ "$(id -u)" != 0 ] || die 71 "cannot chown $second"
    chmod "${like#* }" "$second"
  fi
  if [ -e /sys/fs/selinux/enforce ] && command -v chcon >/dev/null 2>&1; then chcon --reference="$2" "$second" 2>/dev/null || :; fi
  fsync_file "$second"
}

# both_files BINARY: sets $ku_both to what changes if the binary or its staged successor is touched: inode, size,
# owner, times.
both_files() { ku_both=$(stat -L -c '%d:%i %s %u:%g %a %y %z' "$1" "$second" 2>/dev/null) || return 1; }

# seal STAGED BINARY OLD_SHA NEW_SHA: records both files after their digests were compared.
seal() {
  both_files "$2"
  file_digest "$2"
  [ "$sha256" != "$3" ] || printf '%s\n%s\n' "$3 $4" "$ku_both" >"${1%/*}/seal"
}

# sealed STAGED BINARY OLD_SHA NEW_SHA: succeeds if both files are still those whose digests were compared.
sealed() {
  ku_seal=
  { IFS= read -r ku_seal && IFS= read -r ku_first && IFS= read -r ku_second; } 2>/dev/null <"${1%/*}/seal" || return 1
  [ "$ku_seal" = "$3 $4" ] && [ -e "$second" ] && both_files "$2" && [ "$ku_both" = "$ku_first$ku_line_break$ku_second" ]
}
