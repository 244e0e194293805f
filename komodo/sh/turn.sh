# shellcheck shell=sh
# One `docker compose up` of a project at a time: Core and the agent beside it may be switched at the same moment.

# take_turn FOLDER: waits for the one that is at work, for a minute at most. One whose process is gone does not count.
take_turn() {
    turn=$1/compose-turn
    waited=0
    while ! ku_said=$(mkdir "$turn" 2>&1) && [ "$waited" -lt 300 ]; do
        # Not there, and not because it has gone just now: nobody is waited for.
        [ -d "$turn" ] || case $ku_said in *xists*) ;; *) die 1 "$ku_said" ;; esac
        holder=
        { read -r holder <"$turn/pid"; } 2>/dev/null || :
        if [ -n "$holder" ] && ! kill -0 "$holder" 2>/dev/null; then
            rm -rf "$turn"
            continue
        fi
        waited=$((waited + 1))
        sleep 0.2 2>/dev/null || sleep 1
    done
    trap 'rm -rf "$turn"' EXIT
    printf '%s\n' "$$" >"$turn/pid"
}
