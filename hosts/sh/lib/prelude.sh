# shellcheck shell=sh
# In front of every script. Scripts run with `set -eu`, LC_ALL=C and umask 077, as root unless the caller asks
# otherwise. KU_STAMP is a UTC stamp for names (in jobs: the run).

# die CODE TEXT: 70 no space, 71 not allowed, 72 differs from the plan, 73 locked, 74 input incomplete, else a failure.
die() {
  printf '%s\n' "$2" >&2
  exit "$1"
}

ku_line_break='
'
# shellcheck disable=SC2034
tab='	'

# say KEY VALUE: one line `KEY<TAB>VALUE`; a value of several lines gives several. No process is made for it.
say() {
  ku_said=$2
  while :; do
    printf '%s\t%s\n' "$1" "${ku_said%%"$ku_line_break"*}"
    case $ku_said in
      *"$ku_line_break"*) ku_said=${ku_said#*"$ku_line_break"} ;;
      *) return 0 ;;
    esac
  done
}

# value_of NAME LINES: sets $value to what follows NAME= in the first such line; empty where there is none.
value_of() {
  value=
  case $ku_line_break$2 in
    *"$ku_line_break$1="*)
      value=$ku_line_break$2
      value=${value#*"$ku_line_break$1="}
      value=${value%%"$ku_line_break"*}
      ;;
  esac
}

# in_one_line TEXT: sets $line to it, blanks for line breaks
in_one_line() {
  line=$1
  while :; do
    case $line in
      *"$ku_line_break"*) line="${line%%"$ku_line_break"*} ${line#*"$ku_line_break"}" ;;
      *) return 0 ;;
    esac
  done
}

# digest FILE: sets $sha256 to its digest; empty when there is no such file.
digest() {
  sha256=
  if [ -e "$1" ]; then
    sha256=$(sha256sum <"$1") || die 71 "cannot read $1"
    sha256=${sha256%% *}
  fi
}

# digests FILE…: sets $sums, a line `sha256  name` for each of these files; one process for all.
digests() {
  sums=$(sha256sum -- "$@") || die 71 "cannot read all of $*"
}

# next_sum: takes the first line off $sums and sets $sha256 to its digest (sha256sum puts \ before a name it quotes).
next_sum() {
  sha256=${sums%%"$ku_line_break"*}
  sums=${sums#*"$ku_line_break"}
  sha256=${sha256%% *}
  sha256=${sha256#\\}
}

# sha256_of FILE: the same, printed: one process more.
sha256_of() {
  digest "$1"
  [ -z "$sha256" ] || printf '%s\n' "$sha256"
}

# fsync_file FILE… (or folders): what is in them is on the disk afterwards.
fsync_file() {
  sync "$@" 2>/dev/null || sync
}
