# shellcheck shell=sh
# arm SECONDS: starts the automatic rollback timer; 0: there is none. A rollback that it runs right now is waited for,
# so this comes before any check of the files. The folder of $mark is the run folder.
arm() {
  [ "$1" -gt 0 ] || return 0
  armed=$(sh "${mark%/*}/dead-man.sh" arm "$1" $$) || die 1 "the automatic rollback timer could not be started; nothing was switched"
  say auto_rollback_at "${armed##*"$(printf '\t')"}"
}
