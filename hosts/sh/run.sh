# shellcheck shell=sh
# JOB/run.sh, the main process of a detached job. What it runs comes through the FIFO JOB/in and is never a file: a
# line with the size, then sh code that sets KU_STAMP, the script's words as "$@", ku_data (for its standard input; in
# base64 if ku_encoded is set) and the script as the function ku_script.
LC_ALL=C
PATH="${PATH:-/usr/bin:/bin}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/snap/bin"
export LC_ALL PATH
umask 077

ku_job=${0%/run.sh}
# The process that creates this file is the one runner of the job.
set -C
{ true >"$ku_job/claim"; } 2>/dev/null || exit 0
set +C
exec >"$ku_job/out" 2>"$ku_job/err" </dev/null
# A waiting call sees the end of this process as the end of the FIFO. (Opening it for both never blocks.)
[ ! -p "$ku_job/living" ] || exec 9<>"$ku_job/living"
# The end is recorded by a rename, which needs no space: a full disk cannot hide how a job ended.
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
# Written as one line: a reader that finds less of it treats it as not yet written.
if ! { printf '%s\n' "$$ ${ku_start:--} ${ku_boot:--} ${ku_init:--} $ku_group" >"$ku_job/pid" && [ -p "$ku_job/in" ]; }; then
  # Nothing could tell later whether this process lives, so the job does not begin.
  printf 'the job could not be recorded in %s\n' "$ku_job" >&2
  mv "$ku_job/end" "$ku_job/rc.74"
  exit 74
fi

ku_incomplete() {
  printf 'the input from the worker was incomplete\n' >&2
  mv "$ku_job/end" "$ku_job/rc.74"
  exit 74
}

# Opened for both first, which never blocks: the starter holds the other end until everything was read. If it has ended,
# there is an end of file instead of an endless wait.
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
  # Decoded in a pipe: the data may hold a secret and is never a file.
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
    # Processes that the script leaves running do not belong to the job.
    exec 9>&-
    set -eu
    ku_script "$@"
  )
fi
ku_rc=$?
mv "$ku_job/end" "$ku_job/rc.$ku_rc"
