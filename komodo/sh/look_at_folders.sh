# shellcheck shell=sh
# look_at_folders.sh STATE FLEET: what lies in the run folders of this fleet, and what has become of it. Reads only.
# Lines `at<TAB>CHANGE<TAB>KEY<TAB>VALUE`, folders in the order of their names, which is that of time.
state=$1
fleet=$2
tab=$(printf '\t')
tell() { say at "$change$tab$1$tab$2"; }
# written FILE: when it was last written, in seconds
written() { stat -c %Y "$1"; }

if [ -r "$state/lock/owner" ]; then say lock "$(head -n 1 "$state/lock/owner")"; fi
for folder in "$state/$fleet"/*/; do
    folder=${folder%/}
    [ -d "$folder" ] || continue
    change=${folder##*/}
    tell bytes "$(du -sk "$folder" | awk '{ print $1 * 1024 }')"
    [ ! -f "$folder/manifest.json" ] || tell manifest yes
    for mark in core-v2-started core-stopped-at agent-switched rolled-back-at restored-at; do
        [ ! -f "$folder/$mark" ] || tell "$mark" "$(written "$folder/$mark")"
    done
    for mark in "$folder"/switch-*; do
        case ${mark##*/switch-} in
        *[!0-9]*) ;;
        *) tell switched "$(written "$mark")" ;;
        esac
    done
    for attempt in "$folder"/jobs/*/*/; do
        attempt=${attempt%/}
        case ${attempt##*/} in
        *[!0-9]*) ;;
        *) tell attempt "${attempt##*/}" ;;
        esac
    done
    if [ -f "$folder/restore.list" ]; then
        # A server's list has `file` lines, Core's has `saved` lines.
        grep "^file$tab" "$folder/restore.list" | while IFS="$tab" read -r _ _ digest _ _ name path; do
            [ "$(sha256_of "$folder/files/$name")" = "$digest" ] || tell broken "$folder/files/$name"
            now=$(sha256_of "$path")
            [ "$now" = "$digest" ] || tell differs "$path$tab$now"
        done || :
        grep "^saved$tab" "$folder/restore.list" | while IFS="$tab" read -r _ digest name path; do
            [ "$(sha256_of "$folder/files/$name")" = "$digest" ] || tell broken "$folder/files/$name"
            now=$(sha256_of "$path")
            [ "$now" = "$digest" ] || tell differs "$path$tab$now"
        done || :
        core=$(sed -n "s/^core_container$tab//p" "$folder/restore.list" | head -n 1)
        if [ -n "$core" ] && docker inspect "$core" 2>/dev/null | tr ',' '\n' | grep -q '"Running": *true'; then
            tell running "$core"
        fi
    fi
    if command -v docker >/dev/null 2>&1; then
        lower=$(printf '%s' "$change" | tr '[:upper:]' '[:lower:]')
        for what in core-old core-new agent-old agent-new; do
            keeper=komodo-upgrade-keep-$lower-$what
            if docker inspect "$keeper" >/dev/null 2>&1; then tell keeper "$keeper"; fi
        done
    fi
done
