# shellcheck shell=sh
# One `docker compose up` of a project at a time: Core and the agent in its project may be switched at the same moment.

# take_compose_lock FOLDER: waits up to a minute for the process that holds the lock. One that has ended does not count.
take_compose_lock() {
  compose_lock=$1/compose-turn
  waited=0
  while ! ku_error=$(mkdir "$compose_lock" 2>&1) && [ "$waited" -lt 300 ]; do
    # The folder does not exist, and not because it was removed just now: there is nothing to wait for.
    [ -d "$compose_lock" ] || case $ku_error in *xists*) ;; *) die 1 "$ku_error" ;; esac
    holder=
    { read -r holder <"$compose_lock/pid"; } 2>/dev/null || :
    if [ -n "$holder" ] && ! kill -0 "$holder" 2>/dev/null; then
      rm -rf "$compose_lock"
      continue
    fi
    waited=$((waited + 1))
    sleep 0.2 2>/dev/null || sleep 1
  done
  trap 'rm -rf "$compose_lock"' EXIT
  printf '%s\n' "$$" >"$compose_lock/pid"
}
