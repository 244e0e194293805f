# shellcheck shell=sh
# The new binary beside the running one, so that a switch needs no more than a rename.

# beside_of BINARY: sets $beside, its name there.
beside_of() { beside=${1%/*}/.${1##*/}.komodo-upgrade; }

# lay_beside STAGED BINARY NEW_SHA: by a second name where both are on one file system, else as a copy. With BINARY's
# owner, mode and label, and on the disk.
lay_beside() {
  beside_of "$2"
  [ ! -e "$beside" ] || rm -f -- "$beside"
  # A release finds it by this list, whatever becomes of the rest.
  printf '%s\n' "$beside" >>"${1%/*}/beside"
  if ! ln -- "$1" "$beside" 2>/dev/null; then
    if ! cp -- "$1" "$beside"; then
      rm -f -- "$beside"
      die 1 "$beside could not be written; $2 runs as before"
    fi
    digest "$beside"
    [ "$sha256" = "$3" ] || die 70 "$beside was not written whole"
  fi
  both=$(stat -L -c '%u:%g %a' "$2" "$beside")
  like=${both%%"$ku_line_break"*}
  if [ "$both" != "$like$ku_line_break$like" ]; then
    chown "${like% *}" "$beside" 2>/dev/null || [ "$(id -u)" != 0 ] || die 71 "cannot chown $beside"
    chmod "${like#* }" "$beside"
  fi
  if [ -e /sys/fs/selinux/enforce ] && command -v chcon >/dev/null 2>&1; then chcon --reference="$2" "$beside" 2>/dev/null || :; fi
  fsync_file "$beside"
}

# both_files BINARY: sets $ku_both to what shows that neither the binary nor the file beside it was touched: inode, size, owner, times.
both_files() { ku_both=$(stat -L -c '%d:%i %s %u:%g %a %y %z' "$1" "$beside" 2>/dev/null) || return 1; }

# seal STAGED BINARY OLD_SHA NEW_SHA: notes both files, once their digests were compared.
seal() {
  both_files "$2"
  digest "$2"
  [ "$sha256" != "$3" ] || printf '%s\n%s\n' "$3 $4" "$ku_both" >"${1%/*}/seal"
}

# sealed STAGED BINARY OLD_SHA NEW_SHA: both files are still those whose digests were compared.
sealed() {
  ku_seal=
  { IFS= read -r ku_seal && IFS= read -r ku_first && IFS= read -r ku_second; } 2>/dev/null <"${1%/*}/seal" || return 1
  [ "$ku_seal" = "$3 $4" ] && [ -e "$beside" ] && both_files "$2" && [ "$ku_both" = "$ku_first$ku_line_break$ku_second" ]
}
