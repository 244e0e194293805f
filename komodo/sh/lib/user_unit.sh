# shellcheck shell=sh
# use_manager SCOPE: with `user`, systemctl and journalctl mean the units of the user who runs this script; over SSH
# nothing sets the variable by which his service manager is found.
ku_manager=
use_manager() {
  [ "$1" = user ] || return 0
  ku_manager=--user
  XDG_RUNTIME_DIR=${XDG_RUNTIME_DIR:-/run/user/$(id -u)}
  export XDG_RUNTIME_DIR
  systemctl() { command systemctl --user "$@"; }
  # Every call begins with -u UNIT.
  journalctl() {
    shift
    command journalctl --user-unit "$@"
  }
}
