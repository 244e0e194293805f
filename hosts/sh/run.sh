# shellcheck shell=sh
# Takes one framed call from standard input and runs it. Used twice: attached (its text comes through the SSH channel,
# see wire.py) and as JOB/run.sh, the main process of a detached job; then the frame comes through the FIFO JOB/in.
#
# The frame, after the marker line: stamp, seconds until an attached script is ended (0: never), number of arguments, per argument its number of lines and the lines, size of
# the script, the script (ends with "#end"). Attached, the rest of the input is the script's own. In a job there follow
# the size of the data in base64 (0: none) and the data.
LC_ALL=C
PATH="${PATH:-/usr/bin:/bin}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/snap/bin"
export LC_ALL PATH
umask 077

ku_job=
case $0 in
*/run.sh)
    ku_job=${0%/run.sh}
    # Whoever makes this folder is the job's one runner.
    mkdir "$ku_job/claim" 2>/dev/null || exit 0
    exec >"$ku_job/out" 2>"$ku_job/err" </dev/null
    # Whoever waits for this job sees it end when we do. (Open for both, it waits for nobody.)
    [ ! -p "$ku_job/living" ] || exec 9<>"$ku_job/living"
    # Ends as a rename, which needs no space: a full disk cannot hide how a job ended.
    : >"$ku_job/end"
    ku_stat=
    [ ! -r "/proc/$$/stat" ] || IFS= read -r ku_stat <"/proc/$$/stat"
    # shellcheck disable=SC2086
    set -- ${ku_stat##*) }
    ku_group=${3:-0}
    ku_start=
    [ $# -lt 20 ] || { shift 19 && ku_start=$1; }
    ku_stat=
    [ ! -r /proc/1/stat ] || IFS= read -r ku_stat </proc/1/stat
    # shellcheck disable=SC2086
    set -- ${ku_stat##*) }
    ku_init=
    [ $# -lt 20 ] || { shift 19 && ku_init=$1; }
    ku_boot=
    [ ! -r /proc/sys/kernel/random/boot_id ] || IFS= read -r ku_boot </proc/sys/kernel/random/boot_id
    if ! { printf '%s\n' "$$ ${ku_start:--} ${ku_boot:--} ${ku_init:--} $ku_group" >"$ku_job/pid.new" &&
        mv "$ku_job/pid.new" "$ku_job/pid" && [ -p "$ku_job/in" ]; }; then
        # Nobody could tell later whether we live: better not to begin.
        printf 'the job could not be recorded in %s\n' "$ku_job" >&2
        mv "$ku_job/end" "$ku_job/rc.74"
        exit 74
    fi
    # If the starter died, opening the FIFO would wait for ever: this holds its other end for a while.
    sleep 20 >"$ku_job/in" 9>&- &
    ku_guard=$!
    exec <"$ku_job/in"
    ;;
esac

ku_incomplete() {
    printf 'the input from the worker was incomplete\n' >&2
    if [ -n "$ku_job" ]; then
        kill "$ku_guard" 2>/dev/null
        mv "$ku_job/end" "$ku_job/rc.74"
    fi
    exit 74
}

IFS= read -r ku_marker || ku_incomplete
if [ -z "$ku_job" ]; then
    # Whatever login scripts printed before these lines is dropped by the worker.
    printf '\n%s begin\n' "$ku_marker"
    printf '\n%s begin\n' "$ku_marker" >&2
fi
IFS= read -r KU_STAMP || ku_incomplete
IFS= read -r ku_limit || ku_incomplete
IFS= read -r ku_count || ku_incomplete
set --
while [ "$ku_count" -gt 0 ]; do
    ku_count=$((ku_count - 1))
    IFS= read -r ku_lines || ku_incomplete
    IFS= read -r ku_value || ku_incomplete
    while [ "$ku_lines" -gt 1 ]; do
        ku_lines=$((ku_lines - 1))
        IFS= read -r ku_line || ku_incomplete
        ku_value="$ku_value
$ku_line"
    done
    set -- "$@" "$ku_value"
done
IFS= read -r ku_size || ku_incomplete
# dd with fullblock takes exactly this many bytes, at once; head may take more than it gives.
ku_script=$(dd bs="$ku_size" count=1 iflag=fullblock 2>/dev/null)
case $ku_script in
*'#end') ;;
*) ku_incomplete ;;
esac

# Ends a process and all that it has started. Stopped first, so that it starts nothing more.
ku_end_tree() { # PID
    kill -s STOP "$1" 2>/dev/null
    for ku_entry in /proc/[0-9]*/stat; do
        ku_stat=
        { IFS= read -r ku_stat <"$ku_entry"; } 2>/dev/null || continue
        # shellcheck disable=SC2086
        set -- "$1" ${ku_stat##*) }
        if [ "${3:-}" = "$1" ]; then
            ku_entry=${ku_entry#/proc/}
            (ku_end_tree "${ku_entry%/stat}")
        fi
    done
    kill -s KILL "$1" 2>/dev/null
}

# Sets ku_start: when a process began; empty once it is gone.
ku_since() { # PID
    ku_start=
    ku_stat=
    { IFS= read -r ku_stat <"/proc/$1/stat"; } 2>/dev/null || return 0
    # shellcheck disable=SC2086
    set -- ${ku_stat##*) }
    [ $# -lt 20 ] || { shift 19 && ku_start=$1; }
}

# The end of a connection ends no process: whoever waits for it may be gone, so it has its own clock.
ku_watch() { # PID
    trap 'kill "$ku_sleep" 2>/dev/null; exit 0' TERM
    ku_since "$1"
    ku_began=$ku_start
    sleep "$ku_limit" &
    ku_sleep=$!
    wait "$ku_sleep"
    # Its number may be somebody else's by now, where our shell was killed and could not say that it had ended.
    ku_since "$1"
    if [ -n "$ku_began" ] && [ "$ku_start" = "$ku_began" ]; then ku_end_tree "$1"; fi
}

if [ -z "$ku_job" ]; then
    # In this shell's child, without exec: neither script nor arguments show up in a process list.
    if [ "$ku_limit" -gt 0 ]; then
        exec 3<&0
        (
            exec 3<&-
            set -eu
            eval "$ku_script"
        ) <&3 &
        ku_script_pid=$!
        exec 3<&-
        (
            # By exec: a redirected function keeps the streams open beside, and so the channel.
            exec </dev/null >/dev/null 2>&1
            ku_watch "$ku_script_pid"
        ) &
        ku_dog=$!
        wait "$ku_script_pid"
        ku_rc=$?
        kill "$ku_dog" 2>/dev/null
    else
        (
            set -eu
            eval "$ku_script"
        )
        ku_rc=$?
    fi
    printf '\n%s end %s\n' "$ku_marker" "$ku_rc" >&2
    printf '\n%s end %s\n' "$ku_marker" "$ku_rc"
    exit 0
fi

IFS= read -r ku_size || ku_incomplete
if [ "$ku_size" -gt 0 ]; then
    ku_data=$(dd bs="$ku_size" count=1 iflag=fullblock 2>/dev/null)
    [ "${#ku_data}" -eq "$ku_size" ] || ku_incomplete
fi
exec </dev/null
kill "$ku_guard" 2>/dev/null
wait "$ku_guard" 2>/dev/null
rm -f "$ku_job/in"
: >"$ku_job/fed"
if [ "$ku_size" -gt 0 ]; then
    # Decoded on the way: what was sent (it may hold a secret) is never a file.
    printf '%s' "$ku_data" | base64 -d | (
        exec 9>&-
        unset ku_data
        set -eu
        eval "$ku_script"
    )
else
    (
        # Nothing that the script leaves running counts as the job.
        exec 9>&-
        set -eu
        eval "$ku_script"
    )
fi
ku_rc=$?
mv "$ku_job/end" "$ku_job/rc.$ku_rc"
