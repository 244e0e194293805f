# shellcheck shell=sh
# Jobs and the lock of the host.
#
# JOB/ holds living (a FIFO that the runner keeps open until it ends), starter (pid, start time), claim (created by the
# one runner), pid (pid, start time, boot id, start time of PID 1, process group), out, err, and at the end rc.<exit
# code>. STATE/lock/owner holds "<fleet> <run>" and the time when it was taken.

# Sets ku_leader if the process with this start time lives, and ku_zombie if it is a zombie.
ku_inspect() { # PID START
  ku_leader=
  ku_zombie=
  if [ ! -r /proc/self/stat ]; then
    ! kill -0 "$1" 2>/dev/null || ku_leader=yes
    return 0
  fi
  ku_stat=
  { IFS= read -r ku_stat <"/proc/$1/stat"; } 2>/dev/null || return 0
  # shellcheck disable=SC2086
  set -- "$2" ${ku_stat##*) }
  ku_started=$1
  ku_letter=$2
  [ $# -ge 21 ] || return 0
  shift 20
  [ "$1" = "$ku_started" ] || [ "$ku_started" = - ] || return 0
  case $ku_letter in
    Z | X) ku_zombie=yes ;;
    *) ku_leader=yes ;;
  esac
}

# Sets ku_start to the start time of this shell in /proc ("-": unknown).
ku_own_start() {
  ku_start=-
  ku_stat=
  [ ! -r "/proc/$$/stat" ] || IFS= read -r ku_stat <"/proc/$$/stat"
  # shellcheck disable=SC2086
  set -- ${ku_stat##*) }
  [ $# -lt 20 ] || { shift 19 && ku_start=$1; }
}

# Succeeds if the process that made this job's folder ended before a runner claimed it.
ku_starter_died() { # JOB
  ku_pid=
  { read -r ku_pid ku_start <"$1/starter"; } 2>/dev/null || return 1
  ku_inspect "$ku_pid" "$ku_start"
  [ -z "$ku_leader" ] && [ ! -e "$1/claim" ]
}

# Succeeds if a process of this group lives. Called only if its leader has ended.
ku_group_lives() { # GROUP
  for ku_file in /proc/[0-9]*/stat; do
    ku_stat=
    { IFS= read -r ku_stat <"$ku_file"; } 2>/dev/null || continue
    ku_rest=${ku_stat##*) }
    case $ku_rest in Z* | X*) continue ;; esac
    ku_rest=${ku_rest#* }
    ku_rest=${ku_rest#* }
    [ "${ku_rest%% *}" != "$1" ] || return 0
  done
  return 1
}

# Sets ku_state: none | starting | running | done | gone, ku_rc when done, ku_pid and ku_pgid when running.
ku_state_of() { # JOB
  ku_rc=
  ku_pid=
  ku_pgid=
  if [ ! -d "$1" ]; then
    ku_state=none
    return 0
  fi
  if ku_finished "$1"; then return 0; fi
  if [ ! -e "$1/pid" ]; then
    ku_state=starting
    return 0
  fi
  ku_start=
  ku_boot=
  ku_init=
  if ! { read -r ku_pid ku_start ku_boot ku_init ku_pgid <"$1/pid"; } 2>/dev/null; then
    # The file is being written.
    ku_pid=
    ku_state=starting
    return 0
  fi
  ku_state=gone
  ku_here=
  [ ! -r /proc/sys/kernel/random/boot_id ] || IFS= read -r ku_here </proc/sys/kernel/random/boot_id
  if [ "$ku_boot" = "${ku_here:--}" ] && ku_same_init "$ku_init"; then
    ku_inspect "$ku_pid" "$ku_start"
    if [ -n "$ku_leader" ]; then
      ku_state=running
    elif [ "$ku_pgid" = "$ku_pid" ] && { [ -n "$ku_zombie" ] || [ ! -e "/proc/$ku_pid" ]; } && ku_group_lives "$ku_pgid"; then
      # The runner was killed, but not the script that it started.
      ku_state=running
    fi
  fi
  # It may have ended meanwhile.
  [ "$ku_state" = running ] || ku_finished "$1" || :
}

ku_finished() { # JOB
  for ku_file in "$1"/rc.*; do
    if [ -e "$ku_file" ]; then
      ku_state='done'
      ku_rc=${ku_file##*.}
      return 0
    fi
  done
  return 1
}

# A restarted container keeps the boot id of its machine, but its PID 1 is a new process.
ku_same_init() { # START
  ku_stat=
  [ ! -r /proc/1/stat ] || IFS= read -r ku_stat </proc/1/stat
  # shellcheck disable=SC2086
  set -- "$1" ${ku_stat##*) }
  if [ $# -lt 21 ]; then
    [ "$1" = - ]
    return
  fi
  ku_recorded=$1
  shift 20
  [ "$ku_recorded" = "$1" ]
}

# Renames a job's (or an attempt's) folder out of the way: JOB.WHAT.N
ku_set_aside() { # FOLDER WHAT
  ku_number=1
  while [ -e "$1.$2.$ku_number" ]; do ku_number=$((ku_number + 1)); done
  mv "$1" "$1.$2.$ku_number"
}

# Succeeds if a job of this run folder lives, and sets ku_living to its folder.
ku_any_alive() { # RUN_FOLDER
  ku_living=
  for ku_each in "$1"/jobs/*/*/*/pid; do
    [ -e "$ku_each" ] || continue
    ku_state_of "${ku_each%/pid}"
    if [ "$ku_state" = running ]; then
      ku_living=${ku_each%/pid}
      return 0
    fi
  done
  return 1
}

ku_owner_of() { # LOCK: sets ku_owner and ku_since
  ku_owner=
  ku_since=
  { { IFS= read -r ku_owner && IFS= read -r ku_since; } <"$1/owner"; } 2>/dev/null || :
}

# Succeeds if the lock was not used for thirty days: its run has ended or was abandoned.
ku_lock_expired() { # LOCK
  [ -n "$(find "$1/owner" -mtime +30 2>/dev/null)" ]
}

# Takes the host's lock for this run. If the run holds it already, this counts as a use. A lock of an older run of the
# same fleet is taken over after its jobs have ended; this waits up to ku_lock_patience seconds (default: five minutes)
# and prints heartbeats. A lock of another fleet: exit code 73, unless it has expired and none of its jobs runs.
ku_lock() { # STATE FLEET CHANGE
  ku_patience=0
  ku_owner_of "$1/lock"
  if [ "$ku_owner" = "$2 $3" ]; then
    # Its thirty days start again.
    touch -c "$1/lock/owner" 2>/dev/null || :
    return 0
  fi
  while :; do
    if ku_error=$(mkdir "$1/lock" 2>&1); then
      if printf '%s %s\n%s\n' "$2" "$3" "$(date -u +%Y-%m-%dT%H:%M:%SZ)" >"$1/lock/new.$$" &&
        mv "$1/lock/new.$$" "$1/lock/owner"; then
        return 0
      fi
      # Another call that was about to take over the lock has renamed it for a moment, or the disk is full.
      ku_patience=$((ku_patience + 1))
      if [ "$ku_patience" -lt 20 ]; then
        sleep 0.1 2>/dev/null || sleep 1
        continue
      fi
      rm -rf "$1/lock"
      die 1 "could not write the lock in $1"
    fi
    [ -d "$1/lock" ] || [ ! -d "$1" ] || case $ku_error in *xists*) continue ;; esac
    [ -d "$1/lock" ] || die 1 "could not make the lock: $ku_error"
    ku_owner_of "$1/lock"
    case $ku_owner in
      "$2 $3") return 0 ;;
      '')
        # Another call is taking it, or ended while doing so.
        ku_patience=$((ku_patience + 1))
        if [ "$ku_patience" -lt 20 ]; then
          sleep 0.1 2>/dev/null || sleep 1
          continue
        fi
        ;;
      "$2 "*)
        if ku_any_alive "$1/$2/${ku_owner#* }"; then
          if [ "${ku_lock_patience:=300}" -gt 0 ]; then
            ku_lock_patience=$((ku_lock_patience - 1))
            printf 'life\t0\n'
            sleep 1
            continue
          fi
          die 73 "the earlier upgrade ${ku_owner#* } of this fleet still has a job running here: $ku_living"
        fi
        ;;
      *)
        if ! ku_lock_expired "$1/lock" || ku_any_alive "$1/${ku_owner%% *}/${ku_owner#* }"; then
          die 73 "locked by the upgrade ${ku_owner#* } of the fleet ${ku_owner%% *}, since ${ku_since:-an unknown time}"
        fi
        ;;
    esac
    ku_release "$1" "$ku_owner"
  done
}

# Removes the lock if it still has this owner. Of several calls, the rename lets exactly one do it.
ku_release() { # STATE OWNER
  ku_expected=$2
  mv "$1/lock" "$1/lock.old.$$" 2>/dev/null || return 0
  ku_owner_of "$1/lock.old.$$"
  if [ "$ku_owner" != "$ku_expected" ] && [ ! -e "$1/lock" ]; then
    mv "$1/lock.old.$$" "$1/lock"
    rm -rf "$1/lock/lock.old.$$" # where another call has made the folder since, mv has moved this one into it
    return 0
  fi
  rm -rf "$1/lock.old.$$"
}

# Waits for the end of a job's runner, and prints a heartbeat every second. It may return early: check again.
ku_await() { # JOB
  if [ -p "$1/living" ]; then
    (
      trap 'kill -s KILL "$ku_sleep" 2>/dev/null; exit 0' TERM
      while :; do
        sleep 1 &
        ku_sleep=$!
        wait "$ku_sleep"
        printf 'life\t0\n'
      done
    ) &
    ku_ticker=$!
    # Opened for both first, which never blocks. After that, reading ends when the runner ends, for whatever reason.
    { exec 8<>"$1/living" && exec 7<"$1/living"; } 2>/dev/null
    exec 8>&-
    read -r ku_word <&7 || :
    exec 7<&-
    kill "$ku_ticker" 2>/dev/null || :
    wait "$ku_ticker" 2>/dev/null || :
  fi
  # The runner has not opened it yet, or was killed while its script lives: then the state is polled.
  ku_tick=$((${ku_tick:-0} + 1))
  [ "$ku_tick" -gt 1 ] || return 0
  if [ "$ku_tick" -le 5 ]; then ku_pause=0.02; else ku_pause=1; fi
  sleep "$ku_pause" 2>/dev/null || sleep 1
}
