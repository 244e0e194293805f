# shellcheck shell=sh
# JOB/run.sh, the main process of a detached job. What it does comes through the FIFO JOB/in and is never a file: a line
# with its size, then sh code that sets KU_STAMP, the arguments as "$@", ku_data (for the script's standard input; in
# base64 where ku_encoded is set) and the script as the function ku_script.
LC_ALL=C
PATH="${PATH:-/usr/bin:/bin}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/snap/bin"
export LC_ALL PATH
umask 077

ku_job=${0%/run.sh}
# Whoever makes this file is the job's one runner.
set -C
{ true >"$ku_job/claim"; } 2>/dev/null || exit 0
set +C
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
# One line at once: whoever finds less of it takes it for not yet written.
if ! { printf '%s\n' "$$ ${ku_start:--} ${ku_boot:--} ${ku_init:--} $ku_group" >"$ku_job/pid" && [ -p "$ku_job/in" ]; }; then
    # Nobody could tell later whether we live: better not to begin.
    printf 'the job could not be recorded in %s\n' "$ku_job" >&2
    mv "$ku_job/end" "$ku_job/rc.74"
    exit 74
fi

ku_incomplete() {
    printf 'the input from the worker was incomplete\n' >&2
    mv "$ku_job/end" "$ku_job/rc.74"
    exit 74
}

# Opened for both first, which waits for nobody: the starter holds the other end until all was read, and where it is gone
# there is an end of file instead of a wait for ever.
exec 8<>"$ku_job/in"
exec <"$ku_job/in"
exec 8>&-
IFS= read -r ku_size || ku_incomplete
# dd with fullblock takes exactly this many bytes, at once.
ku_code=$(dd bs="$ku_size" count=1 iflag=fullblock 2>/dev/null)
case $ku_code in
*'#end') ;;
*) ku_incomplete ;;
esac
exec </dev/null
rm -f "$ku_job/in"
true >"$ku_job/fed"
ku_data=
ku_encoded=
eval "$ku_code"
unset ku_code
# shellcheck disable=SC2034
if [ -n "$ku_encoded" ]; then
    # Decoded on the way: what was sent (it may hold a secret) is never a file.
    printf '%s' "$ku_data" | base64 -d | (
        exec 9>&-
        unset ku_data
        set -eu
        ku_script "$@"
    )
elif [ -n "$ku_data" ]; then
    printf '%s' "$ku_data" | (
        exec 9>&-
        unset ku_data
        set -eu
        ku_script "$@"
    )
else
    (
        # Nothing that the script leaves running counts as the job.
        exec 9>&-
        set -eu
        ku_script "$@"
    )
fi
ku_rc=$?
mv "$ku_job/end" "$ku_job/rc.$ku_rc"
