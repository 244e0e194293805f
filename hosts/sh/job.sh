# shellcheck shell=sh
# needs: jobs.sh
# job.sh STATE FLEET CHANGE JOB NONCE RUNNER FRAME: starts the job, or attaches to it, and waits for its end. RUNNER is the
# text of run.sh, FRAME what it reads. Prints `life` now and then, and at the end `result<TAB>rc`, out, the line
# `NONCE err`, err, the line `NONCE done`. 75: the job was lost.
ku_base=$1
ku_fleet=$2
ku_change=$3
ku_job_folder=$4
ku_nonce=$5
ku_runner=$6
ku_frame=$7

[ -d "$ku_base" ] || mkdir -p "$ku_base"
ku_lock "$ku_base" "$ku_fleet" "$ku_change"
[ -d "${ku_job_folder%/*}" ] || mkdir -p "${ku_job_folder%/*}"

# By systemd where it runs, so that the end of this session cannot take the job along; else in a session of its own.
ku_launch() { # systemd | setsid
    [ ! -e "$ku_job_folder/in" ] || rm -f "$ku_job_folder/in" "$ku_job_folder/living"
    mkfifo -m 600 "$ku_job_folder/in" "$ku_job_folder/living" || return 1
    # Both ends are held here until the runner has read all: neither it nor what feeds it waits for one that is gone.
    exec 6<>"$ku_job_folder/in"
    if [ "$1" = systemd ]; then
        systemd-run --quiet --collect --no-block --unit="komodo-upgrade-$ku_nonce" \
            --description="komodo-upgrade job ${ku_job_folder#"$ku_base"/}" \
            --setenv=PATH="$PATH" --setenv=HOME="${HOME:-/}" \
            sh "$ku_job_folder/run.sh" </dev/null >/dev/null 2>&1 6>&- || {
            exec 6>&-
            return 1
        }
    elif command -v setsid >/dev/null 2>&1; then
        setsid sh "$ku_job_folder/run.sh" </dev/null >/dev/null 2>&1 6>&- &
    else
        nohup sh "$ku_job_folder/run.sh" </dev/null >/dev/null 2>&1 6>&- &
    fi
    (
        trap '' HUP PIPE
        # Never into a file.
        [ -p "$ku_job_folder/in" ] || exit 0
        exec 7>"$ku_job_folder/in"
        exec 6>&-
        printf '%s\n' "$ku_frame" >&7
    ) </dev/null >/dev/null 2>&1 &
    ku_feeder=$!
    ku_wait=0
    while [ ! -e "$ku_job_folder/fed" ] && ! ku_finished "$ku_job_folder"; do
        ku_wait=$((ku_wait + 1))
        if [ "$ku_wait" -gt 120 ]; then
            # One that has begun is looked at like any other.
            [ ! -e "$ku_job_folder/claim" ] || return 0
            kill "$ku_feeder" 2>/dev/null || :
            exec 6>&-
            return 1
        fi
        if [ "$ku_wait" -le 2 ]; then ku_pause=0.02; else ku_pause=0.05; fi
        sleep "$ku_pause" 2>/dev/null || sleep 1
    done
    exec 6>&-
}

ku_start_job() {
    ku_own_start
    # shellcheck disable=SC2154
    if ! { printf '%s\n' "$$ $ku_start" >"$ku_job_folder/starter" && printf '%s\n' "$ku_runner" >"$ku_job_folder/run.sh"; }; then
        rm -rf "$ku_job_folder"
        die 1 "could not write to $ku_job_folder; nothing was started"
    fi
    # Where systemd does not run, systemd-run says so at once.
    if command -v systemd-run >/dev/null 2>&1 && ku_launch systemd; then
        return 0
    fi
    if ku_launch setsid; then return 0; fi
    ku_set_aside "$ku_job_folder" lost
    die 1 "the job did not start"
}

ku_finish() { # RC
    printf 'result\t%s\n' "$1"
    [ ! -s "$ku_job_folder/out" ] || tail -c 16777216 "$ku_job_folder/out"
    printf '\n%s err\n' "$ku_nonce"
    [ ! -s "$ku_job_folder/err" ] || tail -c 65536 "$ku_job_folder/err"
    printf '\n%s done\n' "$ku_nonce"
    exit 0
}

ku_mine=
ku_seen=
ku_waited=0
while :; do
    if [ -n "$ku_seen" ] && [ ! -e "$ku_job_folder" ]; then
        # An undo took it away. Whoever waits here may be nobody any more (the end of a connection ends no process), and
        # starting it again would undo the undo.
        die 75 "the job was voided by an undo while it was waited for"
    fi
    # A starter whose connection is gone ends here, instead of starting what an undo has just looked for.
    [ -n "$ku_seen" ] || printf 'life\t0\n'
    if [ ! -e "$ku_job_folder" ] && mkdir "$ku_job_folder" 2>/dev/null; then
        ku_mine=yes
        ku_seen=yes
        ku_start_job
    fi
    ku_state_of "$ku_job_folder"
    case $ku_state in
    done)
        if [ "$ku_rc" = 0 ] || [ -n "$ku_mine" ]; then ku_finish "$ku_rc"; fi
        ku_set_aside "$ku_job_folder" failed 2>/dev/null || :
        ku_seen=
        ;;
    running)
        ku_mine=yes
        ku_seen=yes
        printf 'life\t0\n'
        ku_await "$ku_job_folder"
        ;;
    starting)
        # Its starter is at it, or died before it began; then nothing of it ever ran.
        ku_waited=$((ku_waited + 1))
        if [ "$ku_waited" -gt 150 ] || { [ "$ku_waited" -gt 5 ] && ku_starter_died "$ku_job_folder"; }; then
            ku_set_aside "$ku_job_folder" lost 2>/dev/null || :
            if [ -n "$ku_mine" ]; then
                kill "$ku_feeder" 2>/dev/null || :
                die 1 "the job did not start; what there is of it lies in $ku_job_folder.lost.$ku_number"
            fi
            ku_seen=
            ku_waited=0
        else
            [ "$((ku_waited % 10))" -ne 1 ] || printf 'life\t0\n'
            sleep 0.1 2>/dev/null || sleep 1
        fi
        ;;
    gone)
        ku_set_aside "$ku_job_folder" lost || continue
        die 75 "the job ended without an exit code: the host was restarted, or the job was killed. Its log is in $ku_job_folder.lost.$ku_number"
        ;;
    none)
        # Set aside by another call just now: start it.
        [ -d "${ku_job_folder%/*}" ] || mkdir -p "${ku_job_folder%/*}"
        sleep 0.1 2>/dev/null || sleep 1
        ku_waited=$((ku_waited + 1))
        [ "$ku_waited" -le 150 ] || die 1 "could not make $ku_job_folder: $(mkdir "$ku_job_folder" 2>&1)"
        ;;
    esac
done
