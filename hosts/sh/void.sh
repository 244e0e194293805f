# shellcheck shell=sh
# needs: jobs.sh
# void.sh STATE FLEET CHANGE PATIENCE FOLDER…: takes the lock, waits up to PATIENCE seconds for jobs under the FOLDERs,
# stops those that still run, and renames each FOLDER, so that none of its jobs counts as done.
ku_base=$1
ku_fleet=$2
ku_change=$3
ku_patience_left=$4
shift 4

mkdir -p "$ku_base"
ku_lock "$ku_base" "$ku_fleet" "$ku_change"

# Jobs are FOLDER itself or one or two levels below it.
ku_running_below() { # FOLDER…
    for ku_folder; do
        for ku_each in "$ku_folder"/pid "$ku_folder"/*/pid "$ku_folder"/*/*/pid; do
            [ -e "$ku_each" ] || continue
            ku_state_of "${ku_each%/pid}"
            [ "$ku_state" != running ] || return 0
        done
    done
    return 1
}

ku_signal() { # SIGNAL
    if [ "$ku_pgid" = "$ku_pid" ]; then
        kill -s "$1" -- "-$ku_pgid" 2>/dev/null || :
    else
        kill -s "$1" "$ku_pid" 2>/dev/null || :
    fi
}

ku_force=0
while ku_running_below "$@"; do
    printf 'life\t%s\n' "$ku_patience_left"
    if [ "$ku_patience_left" -le 0 ]; then
        if [ "$ku_force" -lt 10 ]; then ku_signal TERM; else ku_signal KILL; fi
        ku_force=$((ku_force + 1))
        [ "$ku_force" -le 20 ] || die 1 "a job could not be stopped: ${ku_each%/pid} (process $ku_pid)"
    fi
    ku_patience_left=$((ku_patience_left - 1))
    sleep 1
done
for ku_folder; do
    if [ -d "$ku_folder" ]; then
        ku_set_aside "$ku_folder" void
        say voided "$ku_folder.void.$ku_number"
    fi
done
