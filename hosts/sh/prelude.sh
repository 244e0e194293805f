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

# Full path with symbolic links followed, so that a link stays a link.
ku_real() {
    ku_dest=$1
    [ ! -L "$1" ] || ku_dest=$(readlink -f "$1" 2>/dev/null) || ku_dest=$1
}

# replace_file NEW DEST BASE_SHA RESULT_SHA: DEST becomes NEW's content, or stays as it was. Owner, mode, label and
# attributes of DEST stay. Nothing to do when DEST is RESULT_SHA already; 72 when it is neither that nor BASE_SHA
# (empty: no such file yet; then NEW's mode counts, and NEW may not be /dev/stdin).
replace_file() {
    ku_real "$2"
    digest "$ku_dest"
    if [ "$sha256" = "$4" ]; then
        return 0
    fi
    [ "$sha256" = "$3" ] || die 72 "$2 is not what it was when the plan was made (sha256 ${sha256:-none, no such file}, planned ${3:-no such file}); left as it is"
    ku_temp="${ku_dest%/*}/.${ku_dest##*/}.komodo-upgrade.$$"
    if [ -n "$3" ]; then
        # First everything about the file, then the new bytes into it.
        if ! { cp -a "$ku_dest" "$ku_temp" && cat "$1" >"$ku_temp"; }; then ku_undo_temp "$2"; fi
    else
        cp -p "$1" "$ku_temp" || ku_undo_temp "$2"
    fi
    fsync_file "$ku_temp"
    if [ -e "$ku_dest" ]; then digests "$ku_temp" "$ku_dest"; else digests "$ku_temp"; fi
    next_sum
    if [ "$sha256" != "$4" ]; then
        rm -f "$ku_temp"
        die 74 "the new content for $2 did not arrive whole; the file is left as it is"
    fi
    sha256=
    if [ -e "$ku_dest" ]; then next_sum; fi
    if [ "$sha256" != "$3" ]; then
        rm -f "$ku_temp"
        die 72 "$2 was changed by somebody else just now; left as it is"
    fi
    mv -f "$ku_temp" "$ku_dest" || ku_undo_temp "$2"
    fsync_file "${ku_dest%/*}"
    digest "$ku_dest"
    [ "$sha256" = "$4" ] || die 1 "$2 does not hold what was written to it"
}

ku_undo_temp() {
    # Which of the two it was is told by what the failing command printed.
    rm -f "$ku_temp"
    die 1 "could not write beside $1; the file is left as it was"
}

# keep_copy SRC DEST: a copy with owner and mode; prints its name. A DEST with other content is never overwritten:
# then the copy is DEST.<stamp>.
keep_copy() {
    digest "$1"
    copy_of "$1" "$2" "$sha256"
    printf '%s\n' "$ku_copy"
}

# copy_of SRC DEST SHA256: the same where the digest of SRC is known; sets $ku_copy to the copy's name.
copy_of() {
    ku_want=$3
    [ -n "$ku_want" ] || die 1 "there is no $1 to keep a copy of"
    ku_stamp=${KU_STAMP:-}
    [ -n "$ku_stamp" ] || ku_stamp=$(date -u +%Y%m%dT%H%M%SZ)
    ku_copy=$2
    ku_more=0
    while [ -e "$ku_copy" ]; do
        digest "$ku_copy"
        if [ "$sha256" = "$ku_want" ]; then return 0; fi
        ku_more=$((ku_more + 1))
        ku_copy=$2.$ku_stamp
        [ "$ku_more" -eq 1 ] || ku_copy=$ku_copy.$ku_more
    done
    ku_temp=$ku_copy.komodo-upgrade.$$
    # -L: the copy holds the content, also where SRC is a link.
    cp -pL "$1" "$ku_temp" || ku_undo_temp "$ku_copy"
    fsync_file "$ku_temp"
    digest "$ku_temp"
    [ "$sha256" = "$ku_want" ] || ku_undo_temp "$ku_copy"
    mv "$ku_temp" "$ku_copy" || ku_undo_temp "$ku_copy"
}
