# shellcheck shell=sh
# carries: lib/prelude.sh lib/files.sh
# Files in folders that another user may write to. That user could replace any name there by a link at any moment, so
# root neither reads nor writes nor runs anything there: it works as the owner of that folder, or refuses with the
# reason. A process that is not root works as itself. $ku_carried holds this file's text, for the process of the other
# user.

# ku_walk PATH: sets $ku_dirs to the folders that decide what PATH is, from / on, $ku_exact to those in which a name is
# a link or the last one, and $ku_real to the path without links. They are followed one by one.
ku_walk() {
  ku_dirs=/$ku_line_break
  ku_exact=$ku_line_break
  ku_at=
  ku_rest=$1
  ku_links=0
  while [ -n "$ku_rest" ]; do
    ku_component=${ku_rest%%/*}
    case $ku_rest in */*) ku_rest=${ku_rest#*/} ;; *) ku_rest= ;; esac
    case $ku_component in
      '' | .) continue ;;
      ..)
        ku_at=${ku_at%/*}
        continue
        ;;
    esac
    if [ -L "$ku_at/$ku_component" ]; then
      ku_exact=$ku_exact${ku_at:-/}$ku_line_break
      ku_links=$((ku_links + 1))
      [ "$ku_links" -le 40 ] || die 71 "$1 cannot be resolved: too many links"
      ku_target=$(readlink "$ku_at/$ku_component")
      case $ku_target in /*) ku_at= ;; esac
      ku_rest=$ku_target/$ku_rest
    elif [ -d "$ku_at/$ku_component" ]; then
      ku_at=$ku_at/$ku_component
      ku_dirs=$ku_dirs$ku_at$ku_line_break
    else
      ku_exact=$ku_exact${ku_at:-/}$ku_line_break
      ku_real=$ku_at/$ku_component${ku_rest:+/$ku_rest}
      return 0
    fi
  done
  ku_real=${ku_at:-/}
}

# look_up PATH…: reads the facts of these files and of the folders on their way, with one process for all.
look_up() {
  ku_wanted=
  for ku_path; do
    ku_walk "$ku_path"
    ku_wanted=$ku_wanted$ku_dirs
    [ ! -f "$ku_path" ] || ku_wanted=$ku_wanted$ku_path$ku_line_break
  done
  set -f
  IFS=$ku_line_break
  # shellcheck disable=SC2086 # one word per line
  set -- $ku_wanted
  unset IFS
  set +f
  ku_known=$ku_line_break$(stat -L -c "%u %a %U %g %s %d:%i$tab%n" -- "$@" 2>/dev/null)$ku_line_break${ku_known:-} || :
}

# facts_of PATH: sets $ku_f_uid, $ku_f_mode, $ku_f_user, $ku_f_gid, $ku_f_size and $ku_f_inode as look_up found them;
# fails if it did not.
facts_of() {
  case ${ku_known:-} in *"$tab$1$ku_line_break"*) ;; *) return 1 ;; esac
  ku_facts=${ku_known%%"$tab$1$ku_line_break"*}
  ku_facts=${ku_facts##*"$ku_line_break"}
  case $ku_facts in *"$tab"*) die 71 "$1 cannot be distinguished from another name" ;; esac
  IFS=' ' read -r ku_f_uid ku_f_mode ku_f_user ku_f_gid ku_f_size ku_f_inode <<END
$ku_facts
END
}

# ku_open MODE: the group or others may write.
ku_open() { case $1 in *[2367] | *[2367]?) ;; *) return 1 ;; esac }

# ku_identity PATH: sets $ku_uid to the user as whom PATH must be handled, and $ku_user and $ku_gid; empty: as this
# process.
ku_identity() {
  ku_uid=
  [ -O / ] || return 0
  ku_walk "$1"
  facts_of "${ku_at:-/}" || {
    look_up "$1"
    ku_walk "$1"
  }
  ku_left=$ku_dirs
  while [ -n "$ku_left" ]; do
    ku_dir=${ku_left%%"$ku_line_break"*}
    ku_left=${ku_left#*"$ku_line_break"}
    facts_of "$ku_dir" || die 71 "the folder $ku_dir cannot be read"
    if [ "$ku_f_uid" != 0 ]; then
      ku_uid=$ku_f_uid ku_user=$ku_f_user ku_gid=$ku_f_gid
      return 0
    fi
    ku_open "$ku_f_mode" || continue
    case $ku_f_mode in
      [1357]???)
        # In a folder like /tmp nobody can replace a folder of root.
        case $ku_exact in *"$ku_line_break$ku_dir$ku_line_break"*) ;; *) continue ;; esac
        ;;
    esac
    die 71 "$1 is not safe to use as root: other users may write to $ku_dir (mode $ku_f_mode). \
Remove that permission: chmod go-w $ku_dir"
  done
}

# require_root_only FOLDER: what root stores and runs there must not be writable for anyone else.
require_root_only() {
  ku_identity "$1"
  [ -z "$ku_uid" ] || die 71 "$1 is not safe to use as root: $ku_dir belongs to $ku_user. \
Choose a folder of root (state_dir), or: chown root $ku_dir"
}

# ku_quote WORD: sets $ku_quoted to it in single quotes.
ku_quote() {
  ku_quoted=
  ku_left=$1
  while :; do
    case $ku_left in
      *"'"*)
        ku_quoted="$ku_quoted${ku_left%%"'"*}'\\''"
        ku_left=${ku_left#*"'"}
        ;;
      *)
        ku_quoted="'$ku_quoted$ku_left'"
        return 0
        ;;
    esac
  done
}

# ku_as_user WORD…: a command as $ku_uid.
ku_as_user() {
  if command -v setpriv >/dev/null 2>&1 && setpriv --help 2>&1 | grep -q reuid; then
    if [ "$ku_user" = UNKNOWN ]; then
      setpriv --reuid "$ku_uid" --regid "$ku_gid" --clear-groups -- "$@"
    else
      setpriv --reuid "$ku_uid" --regid "$(id -g "$ku_user")" --init-groups -- "$@"
    fi
  elif [ "$ku_user" != UNKNOWN ] && command -v runuser >/dev/null 2>&1; then
    runuser -u "$ku_user" -- "$@"
  elif [ "$ku_user" != UNKNOWN ] && command -v su >/dev/null 2>&1; then
    # In one word: its own options may stand behind the user, too.
    ku_command="exec"
    for ku_word; do ku_quote "$ku_word" && ku_command="$ku_command $ku_quoted"; done
    su -s /bin/sh "$ku_user" -c "$ku_command"
  elif command -v sudo >/dev/null 2>&1; then
    sudo -n -u "#$ku_uid" -- "$@"
  else
    die 71 "$ku_dir belongs to $ku_user, and there is neither setpriv nor runuser, su or sudo to work as that user"
  fi
}

# as_owner PATH FUNCTION WORD…: runs a function of this file or of the prelude as PATH must be handled. What it sets in
# $ku_result is the same afterwards, wherever it ran.
as_owner() {
  ku_identity "$1"
  shift
  ku_result=
  if [ -z "$ku_uid" ]; then
    "$@"
    return
  fi
  # Its output never is this script's own: the other user could write into it, too.
  # shellcheck disable=SC2016
  ku_result=$(ku_as_user sh -c "$ku_carried"'
set -eu
umask 077
ku_foreign=yes
KU_STAMP=$1 ku_result=
shift
"$@" >&2
printf "\n%s" "$ku_result"' sh "${KU_STAMP:-}" "$@" 2>&1) || die "$?" "$ku_result"
  ku_result=${ku_result##*"$ku_line_break"}
}

# run_program FILE WORD…: runs it without input; all output on standard output. See may_run.
run_program() {
  if [ -z "$ku_uid" ]; then "$@" 2>&1 </dev/null; else ku_as_user "$@" 2>&1 </dev/null | cat; fi
}

# may_run FILE: sets whom run_program runs FILE as: never as root if another user can change it.
may_run() {
  ku_identity "$1"
  if [ -n "$ku_uid" ] || ! [ -O / ]; then return 0; fi
  facts_of "$1" || look_up "$1"
  facts_of "$1" || die 71 "$1 is not a file"
  if [ "$ku_f_uid" != 0 ]; then
    ku_dir=$1 ku_uid=$ku_f_uid ku_user=$ku_f_user ku_gid=$ku_f_gid
  elif ku_open "$ku_f_mode"; then
    die 71 "$1 is not safe to run as root: other users may write to it (mode $ku_f_mode). \
Remove that permission: chmod go-w $1"
  fi
}

# ku_of_root PATH: a file of root's in a folder of another user. A container that runs as root writes its keys so.
ku_of_root() { [ -n "$ku_uid" ] && [ -f "$1" ] && [ ! -L "$1" ] && [ -O "$1" ]; }

# ku_read_root PATH COMMAND…: runs a command on the content of such a file, after ku_identity PATH. The file is opened
# first: what was opened must be that file of root's under its only name, whatever the other user has done to the name
# since.
ku_read_root() (
  exec 8<"$1"
  ku_opened="$(readlink /proc/self/fd/8) $(stat -L -c '%u %h %F' /proc/self/fd/8)"
  case $ku_opened in
    "$ku_real 0 1 regular "*) ;;
    *) die 71 "$1 is not safe to read as root: it has a second name, or was changed while it was opened" ;;
  esac
  shift
  "$@" <&8
)

# require_readable PATH: ends the script if PATH cannot be read as it must be handled.
require_readable() {
  ku_identity "$1"
  if ku_of_root "$1"; then return 0; fi
  as_owner "$1" ku_require_readable "$1"
}

ku_require_readable() { [ -r "$1" ] || die 71 "$1 cannot be read: permission denied"; }

# read_as_owner PATH: prints a file.
read_as_owner() {
  ku_identity "$1"
  if [ -z "$ku_uid" ]; then
    cat -- "$1"
  elif ku_of_root "$1"; then
    ku_read_root "$1" cat
  else
    ku_as_user cat -- "$1" </dev/null | cat
  fi
}

# file_digest PATH: sets $sha256 to its digest; empty when there is no such file.
file_digest() {
  ku_identity "$1"
  if ku_of_root "$1"; then
    sha256=$(ku_read_root "$1" sha256sum) || exit
    sha256=${sha256%% *}
    return 0
  fi
  as_owner "$1" ku_digest "$1"
  sha256=$ku_result
}

ku_digest() {
  digest "$1"
  ku_result=$sha256
}

# fetch_file PATH COPY: a copy in a folder of root's.
fetch_file() {
  ku_identity "$1"
  if [ -z "$ku_uid" ]; then
    cp -pL -- "$1" "$2"
  elif ku_of_root "$1"; then
    ku_read_root "$1" cat >"$2"
  else
    # Through a pipe, so that no process of the other user holds the copy open.
    ku_as_user cat -- "$1" </dev/null | cat >"$2"
  fi
}

# save_copy PATH COPY SHA256: the same, which is complete or is not made. Exit code 72 if COPY exists with other
# content.
save_copy() {
  digest "$2"
  if [ "$sha256" = "$3" ]; then return 0; fi
  [ -z "$sha256" ] || die 72 "$2 holds another $1 already; it was left as it is"
  sweep_new "$2"
  exclusive_temp "$2"
  fetch_file "$1" "$ku_temp" || ku_undo_temp "$2"
  fsync_file "$ku_temp"
  digest "$ku_temp"
  [ "$sha256" = "$3" ] || ku_undo_temp "$2" "$1 changed while it was copied"
  rename_file "$ku_temp" "$2" || ku_undo_temp "$2"
}

# exclusive_temp FILE: sets $ku_temp to a new, empty file in the folder of FILE, with a name that nobody can know
# before.
exclusive_temp() {
  if [ -r /proc/sys/kernel/random/uuid ]; then
    IFS= read -r ku_random </proc/sys/kernel/random/uuid
  else
    ku_random=$(mktemp -u XXXXXXXXXXXXXXXX)
  fi
  ku_temp=${1%/*}/.${1##*/}.komodo-upgrade.$ku_random
  set -C
  true >"$ku_temp" || {
    set +C
    die 1 "could not write next to $1; the file is left as it was"
  }
  set +C
}

# ku_fill: standard input becomes the content of $ku_temp, whose mode stays. Only root may write to a read-only file.
ku_fill() {
  ku_mode=
  if ! [ -w "$ku_temp" ]; then
    ku_mode=$(stat -c %a "$ku_temp") || return 1
    chmod u+w "$ku_temp" || return 1
  fi
  cat >"$ku_temp" || return 1
  [ -z "$ku_mode" ] || chmod "$ku_mode" "$ku_temp"
}

# rename_file FILE NAME: NAME becomes FILE. A folder of that name is not what FILE is put into.
rename_file() {
  [ ! -d "$2" ] || die 72 "$2 is a folder, a file was expected"
  mv -f -- "$1" "$2"
}

# remove_file FILE: it is gone afterwards.
remove_file() { rm -f -- "$1"; }

# make_folder FOLDER: for its owner only.
make_folder() {
  mkdir -m 0700 -- "$1"
  fsync_file "${1%/*}"
}

# write_new FILE: standard input becomes FILE, mode 0600, with the owner of its folder.
write_new() {
  sweep_new "$1"
  exclusive_temp "$1"
  cat >"$ku_temp" || ku_undo_temp "$1"
  chown -h "$(stat -c '%u:%g' "${1%/*}")" "$ku_temp" 2>/dev/null || ! [ -O / ] || ku_undo_temp "$1"
  fsync_file "$ku_temp"
  rename_file "$ku_temp" "$1" || ku_undo_temp "$1"
  fsync_file "${1%/*}"
}

# prepare_new FILE MODE OWNER SHA256: standard input becomes a file next to FILE, complete, with this mode and owner.
prepare_new() {
  mkdir -p -- "${1%/*}"
  ku_require_own "$1"
  exclusive_temp "$1"
  cat >"$ku_temp" || ku_undo_temp "$1"
  if [ -n "${ku_foreign:-}" ]; then
    [ "${3%%:*}" = "$(id -u)" ] || ku_undo_temp "$1" "its owner $3 is not that of its folder"
    chown -h "$3" "$ku_temp" 2>/dev/null || :
  else
    chown -h "$3" "$ku_temp" 2>/dev/null || ! [ -O / ] || ku_undo_temp "$1"
  fi
  chmod "$2" "$ku_temp" || ku_undo_temp "$1"
  if [ -e "$1" ] && command -v chcon >/dev/null 2>&1; then chcon --reference="$1" "$ku_temp" 2>/dev/null || :; fi
  digest "$ku_temp"
  [ "$sha256" = "$4" ] || ku_undo_temp "$1" "its content did not arrive complete"
}

# commit_new FILE: FILE becomes what prepare_new has written, if it has.
commit_new() {
  for ku_temp in "${1%/*}/.${1##*/}.komodo-upgrade."*; do
    if [ -f "$ku_temp" ]; then rename_file "$ku_temp" "$1"; fi
  done
}

# sweep_new FILE: removes temporary files for FILE that a killed call has left, or that prepare_new has written and
# nothing has renamed. Not where two calls may write the same FILE at once.
sweep_new() {
  for ku_temp in "${1%/*}/.${1##*/}.komodo-upgrade."*; do
    if [ -e "$ku_temp" ] || [ -L "$ku_temp" ]; then rm -f -- "$ku_temp"; fi
  done
}

# restore_content FILE SHA256 MODEL: standard input becomes FILE's content. Owner, mode and label stay; a FILE that
# does not exist gets those of MODEL.
restore_content() {
  ku_require_own "$1"
  ku_walk "$1"
  ku_dest=$ku_real
  sweep_new "$ku_dest"
  exclusive_temp "$ku_dest"
  if [ -e "$ku_dest" ]; then
    cp -a -- "$ku_dest" "$ku_temp" || ku_undo_temp "$1"
  elif [ -r "$3" ]; then
    cp -p -- "$3" "$ku_temp" || ku_undo_temp "$1"
  fi
  ku_fill || ku_undo_temp "$1"
  digest "$ku_temp"
  [ "$sha256" = "$2" ] || ku_undo_temp "$1" "its content did not arrive complete"
  fsync_file "$ku_temp"
  rename_file "$ku_temp" "$ku_dest" || ku_undo_temp "$1"
}

# ku_place_copy MODEL FILE SHA256: standard input becomes FILE, with MODEL's mode.
ku_place_copy() {
  ku_require_own "$1"
  sweep_new "$2"
  exclusive_temp "$2"
  cp -p -- "$1" "$ku_temp" || ku_undo_temp "$2"
  ku_fill || ku_undo_temp "$2"
  fsync_file "$ku_temp"
  digest "$ku_temp"
  [ "$sha256" = "$3" ] || ku_undo_temp "$2" "its content did not arrive complete"
  rename_file "$ku_temp" "$2" || ku_undo_temp "$2"
}

# ku_require_own FILE: as another user, only files of that user can be written with their owner.
ku_require_own() {
  [ -z "${ku_foreign:-}" ] || [ ! -e "$1" ] || [ -O "$1" ] ||
    die 71 "$1 does not belong to the owner of its folder, so it cannot be replaced safely. \
Give both to the same user: chown $(id -u) $1"
}

# say_foreign PATH…: prints those files that ku_require_own will refuse, each with the owner of its folder. Reads only.
say_foreign() {
  for ku_candidate; do
    ku_identity "$ku_candidate"
    [ -n "$ku_uid" ] || continue
    facts_of "$ku_candidate" || look_up "$ku_candidate"
    if facts_of "$ku_candidate" && [ "$ku_f_uid" != "$ku_uid" ]; then say foreign "$ku_uid$tab$ku_candidate"; fi
  done
}

# replace_file NEW DEST BASE_SHA RESULT_SHA: DEST becomes NEW's content (/dev/stdin: standard input), or stays as it
# was. Owner, mode, label and attributes of DEST stay. Nothing to do when DEST is RESULT_SHA already; exit code 72 when
# it is neither that nor BASE_SHA (empty: no such file yet; then it gets mode 0600).
replace_file() {
  if [ "$1" = /dev/stdin ]; then
    as_owner "$2" ku_replace "$2" "$3" "$4"
  else
    as_owner "$2" ku_replace "$2" "$3" "$4" <"$1"
  fi
}

ku_replace() {
  # A link stays a link.
  ku_walk "$1"
  ku_dest=$ku_real
  digest "$ku_dest"
  if [ "$sha256" = "$3" ]; then
    return 0
  fi
  [ "$sha256" = "$2" ] || die 72 "$1 is not what it was when the plan was made \
(sha256 ${sha256:-none, no such file}, planned ${2:-no such file}); left as it is"
  ku_require_own "$ku_dest"
  sweep_new "$ku_dest"
  exclusive_temp "$ku_dest"
  # First everything about the file, then the new bytes into it.
  if [ -n "$2" ]; then cp -a -- "$ku_dest" "$ku_temp" || ku_undo_temp "$1"; fi
  ku_fill || ku_undo_temp "$1"
  fsync_file "$ku_temp"
  if [ -e "$ku_dest" ]; then digests "$ku_temp" "$ku_dest"; else digests "$ku_temp"; fi
  next_sum
  if [ "$sha256" != "$3" ]; then
    rm -f -- "$ku_temp"
    die 74 "the new content for $1 did not arrive complete; the file is left as it is"
  fi
  sha256=
  if [ -e "$ku_dest" ]; then next_sum; fi
  if [ "$sha256" != "$2" ]; then
    rm -f -- "$ku_temp"
    die 72 "$1 was changed by another program just now; left as it is"
  fi
  rename_file "$ku_temp" "$ku_dest" || ku_undo_temp "$1"
  fsync_file "${ku_dest%/*}"
  digest "$ku_dest"
  [ "$sha256" = "$3" ] || die 1 "$1 does not hold what was written to it"
}

# ku_undo_temp FILE [REASON]: ends the script. Without a REASON the command that failed has printed it; it may prevent
# the removal, too.
ku_undo_temp() {
  rm -f -- "$ku_temp" || :
  die 1 "could not write next to $1${2:+: $2}; the file is left as it was"
}

# copy_of SRC DEST SHA256: a copy in the same folder, with owner and mode; sets $ku_result to its name. A DEST with
# other content is never overwritten: then the copy is DEST.<stamp>.
copy_of() {
  ku_want=$3
  [ -n "$ku_want" ] || die 1 "there is no $1 to keep a copy of"
  ku_stamp=${KU_STAMP:-}
  [ -n "$ku_stamp" ] || ku_stamp=$(date -u +%Y%m%dT%H%M%SZ)
  ku_result=$2
  ku_more=0
  while [ -e "$ku_result" ]; do
    digest "$ku_result"
    if [ "$sha256" = "$ku_want" ]; then return 0; fi
    ku_more=$((ku_more + 1))
    ku_result=$2.$ku_stamp
    [ "$ku_more" -eq 1 ] || ku_result=$ku_result.$ku_more
  done
  sweep_new "$ku_result"
  exclusive_temp "$ku_result"
  # -L: the copy holds the content, also where SRC is a link.
  cp -pL -- "$1" "$ku_temp" || ku_undo_temp "$ku_result"
  fsync_file "$ku_temp"
  digest "$ku_temp"
  [ "$sha256" = "$ku_want" ] || ku_undo_temp "$ku_result" "$1 changed while it was copied"
  rename_file "$ku_temp" "$ku_result" || ku_undo_temp "$ku_result"
}
