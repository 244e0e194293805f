# shellcheck shell=sh
# needs: lib/jobs.sh
# params: state fleet change job nonce runner frame
# Starts a job, or attaches to it, and waits for its end. `runner` is the text of run.sh, `frame` is what it reads.
# Prints `life` now and then, and at the end `result<TAB>rc`, out, the line `NONCE err`, err, the line `NONCE done`.
# Exit code 75: the job was lost.
[ -d "$state" ] || mkdir -p "$state"
# A job of root's runs what is stored there.
[ ! -O / ] || [ -O "$state" ] || die 71 "$state does not belong to root, so it is not safe to use as state_dir. Choose a folder of root, or: chown root $state"
ku_lock "$state" "$fleet" "$change"
[ -d "${job%/*}" ] || mkdir -p "${job%/*}"

# Started by systemd if it runs, so that the end of this session cannot end the job; else in a session of its own.
ku_launch() { # systemd | setsid
  [ ! -e "$job/in" ] || rm -f "$job/in" "$job/living"
  mkfifo -m 600 "$job/in" "$job/living" || return 1
  # This shell holds both ends open until the runner has read everything, so that neither side waits for an ended
  # process.
  exec 6<>"$job/in"
  if [ "$1" = systemd ]; then
    systemd-run --quiet --collect --no-block --unit="komodo-upgrade-$nonce" \
      --description="komodo-upgrade job ${job#"$state"/}" \
      --setenv=PATH="$PATH" --setenv=HOME="${HOME:-/}" \
      sh "$job/run.sh" </dev/null >/dev/null 2>&1 6>&- || {
      exec 6>&-
      return 1
    }
  elif command -v setsid >/dev/null 2>&1; then
    setsid sh "$job/run.sh" </dev/null >/dev/null 2>&1 6>&- &
  else
    nohup sh "$job/run.sh" </dev/null >/dev/null 2>&1 6>&- &
  fi
  (
    trap '' HUP PIPE
    # Never into a file.
    [ -p "$job/in" ] || exit 0
    exec 7>"$job/in"
    exec 6>&-
    printf '%s\n' "$frame" >&7
  ) </dev/null >/dev/null 2>&1 &
  ku_feeder=$!
  ku_wait=0
  while [ ! -e "$job/fed" ] && ! ku_finished "$job"; do
    ku_wait=$((ku_wait + 1))
    if [ "$ku_wait" -gt 120 ]; then
      # A runner that has begun is checked like any other.
      [ ! -e "$job/claim" ] || return 0
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
  if ! { printf '%s\n' "$$ $ku_start" >"$job/starter" && printf '%s\n' "$runner" >"$job/run.sh"; }; then
    rm -rf "$job"
    die 1 "could not write to $job; nothing was started"
  fi
  # Without systemd, systemd-run fails at once.
  if command -v systemd-run >/dev/null 2>&1 && ku_launch systemd; then
    return 0
  fi
  if ku_launch setsid; then return 0; fi
  ku_set_aside "$job" lost
  die 1 "the job did not start"
}

ku_finish() { # RC
  printf 'result\t%s\n' "$1"
  [ ! -s "$job/out" ] || tail -c 16777216 "$job/out"
  printf '\n%s err\n' "$nonce"
  [ ! -s "$job/err" ] || tail -c 65536 "$job/err"
  printf '\n%s done\n' "$nonce"
  exit 0
}

ku_mine=
ku_seen=
ku_waited=0
while :; do
  if [ -n "$ku_seen" ] && [ ! -e "$job" ]; then
    # An undo has renamed it. This call's connection may be gone (its end ends no process), and to start the job again
    # would revert the undo.
    die 75 "the job was invalidated by an undo while this call waited for it"
  fi
  # A starter without a connection ends here, and does not start a job that an undo has just searched for.
  [ -n "$ku_seen" ] || printf 'life\t0\n'
  if [ ! -e "$job" ] && mkdir "$job" 2>/dev/null; then
    ku_mine=yes
    ku_seen=yes
    ku_start_job
  fi
  ku_state_of "$job"
  case $ku_state in
    done)
      if [ "$ku_rc" = 0 ] || [ -n "$ku_mine" ]; then ku_finish "$ku_rc"; fi
      ku_set_aside "$job" failed 2>/dev/null || :
      ku_seen=
      ;;
    running)
      ku_mine=yes
      ku_seen=yes
      printf 'life\t0\n'
      ku_await "$job"
      ;;
    starting)
      # Its starter is starting it, or ended before that; then nothing of it ever ran.
      ku_waited=$((ku_waited + 1))
      if [ "$ku_waited" -gt 150 ] || { [ "$ku_waited" -gt 5 ] && ku_starter_died "$job"; }; then
        ku_set_aside "$job" lost 2>/dev/null || :
        if [ -n "$ku_mine" ]; then
          kill "$ku_feeder" 2>/dev/null || :
          die 1 "the job did not start; what it wrote is in $job.lost.$ku_number"
        fi
        ku_seen=
        ku_waited=0
      else
        [ "$((ku_waited % 10))" -ne 1 ] || printf 'life\t0\n'
        sleep 0.1 2>/dev/null || sleep 1
      fi
      ;;
    gone)
      ku_set_aside "$job" lost || continue
      die 75 "the job ended without an exit code: the host was restarted, or the job was killed. Its log is in $job.lost.$ku_number"
      ;;
    none)
      # Another call has just renamed it: start it.
      [ -d "${job%/*}" ] || mkdir -p "${job%/*}"
      sleep 0.1 2>/dev/null || sleep 1
      ku_waited=$((ku_waited + 1))
      [ "$ku_waited" -le 150 ] || die 1 "could not make $job: $(mkdir "$job" 2>&1)"
      ;;
  esac
done
