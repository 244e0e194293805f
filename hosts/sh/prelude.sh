# shellcheck shell=sh
# In front of every script. Scripts run with `set -eu`, LC_ALL=C, umask 077, as root unless told otherwise; values
# reach them as "$1"… or on standard input. KU_STAMP is a UTC stamp for names (jobs: the change).

# die CODE TEXT: 70 no space, 71 not allowed, 72 differs from the plan, 73 locked, 74 input incomplete, else a failure.
die() {
    printf '%s\n' "$2" >&2
    exit "$1"
}

ku_line_break='
'

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

# sha256_of FILE: its digest; empty when there is no such file.
sha256_of() {
    if [ -e "$1" ]; then
        ku_digest=$(sha256sum <"$1") || die 71 "cannot read $1"
        printf '%s\n' "${ku_digest%% *}"
    fi
}

# fsync_file FILE… (or folders): what is in them is on the disk afterwards.
fsync_file() {
    sync "$@" 2>/dev/null || sync
}

# Full path with symbolic links followed, so that a link stays a link.
ku_real() {
    readlink -f "$1" 2>/dev/null || printf '%s\n' "$1"
}

# replace_file NEW DEST BASE_SHA RESULT_SHA: DEST becomes NEW's content, or stays as it was. Owner, mode, label and
# attributes of DEST stay. Nothing to do when DEST is RESULT_SHA already; 72 when it is neither that nor BASE_SHA
# (empty: no such file yet; then NEW's mode counts, and NEW may not be /dev/stdin).
replace_file() {
    ku_dest=$(ku_real "$2")
    ku_now=$(sha256_of "$ku_dest")
    if [ "$ku_now" = "$4" ]; then
        return 0
    fi
    [ "$ku_now" = "$3" ] || die 72 "$2 is not what it was when the plan was made (sha256 ${ku_now:-none, no such file}, planned ${3:-no such file}); left as it is"
    ku_temp="${ku_dest%/*}/.${ku_dest##*/}.komodo-upgrade.$$"
    if [ -n "$3" ]; then
        # First everything about the file, then the new bytes into it.
        if ! { cp -a "$ku_dest" "$ku_temp" && cat "$1" >"$ku_temp"; }; then ku_undo_temp "$2"; fi
    else
        cp -p "$1" "$ku_temp" || ku_undo_temp "$2"
    fi
    fsync_file "$ku_temp"
    if [ "$(sha256_of "$ku_temp")" != "$4" ]; then
        rm -f "$ku_temp"
        die 74 "the new content for $2 did not arrive whole; the file is left as it is"
    fi
    if [ "$(sha256_of "$ku_dest")" != "$3" ]; then
        rm -f "$ku_temp"
        die 72 "$2 was changed by somebody else just now; left as it is"
    fi
    mv -f "$ku_temp" "$ku_dest" || ku_undo_temp "$2"
    fsync_file "${ku_dest%/*}"
    [ "$(sha256_of "$ku_dest")" = "$4" ] || die 1 "$2 does not hold what was written to it"
}

ku_undo_temp() {
    # Which of the two it was is told by what the failing command printed.
    rm -f "$ku_temp"
    die 1 "could not write beside $1; the file is left as it was"
}

# keep_copy SRC DEST: a copy with owner and mode; prints its name. A DEST with other content is never overwritten:
# then the copy is DEST.<stamp>.
keep_copy() {
    ku_want=$(sha256_of "$1")
    [ -n "$ku_want" ] || die 1 "there is no $1 to keep a copy of"
    ku_stamp=${KU_STAMP:-}
    [ -n "$ku_stamp" ] || ku_stamp=$(date -u +%Y%m%dT%H%M%SZ)
    ku_copy=$2
    ku_more=0
    while [ -e "$ku_copy" ]; do
        if [ "$(sha256_of "$ku_copy")" = "$ku_want" ]; then
            printf '%s\n' "$ku_copy"
            return 0
        fi
        ku_more=$((ku_more + 1))
        ku_copy=$2.$ku_stamp
        [ "$ku_more" -eq 1 ] || ku_copy=$ku_copy.$ku_more
    done
    ku_temp=$ku_copy.komodo-upgrade.$$
    # -L: the copy holds the content, also where SRC is a link.
    cp -pL "$1" "$ku_temp" || ku_undo_temp "$ku_copy"
    fsync_file "$ku_temp"
    [ "$(sha256_of "$ku_temp")" = "$ku_want" ] || ku_undo_temp "$ku_copy"
    mv "$ku_temp" "$ku_copy" || ku_undo_temp "$ku_copy"
    printf '%s\n' "$ku_copy"
}
