# shellcheck shell=sh
# needs: lib/files.sh
# params: state_dir fleet
# What the run folders of this fleet hold, and whether it was used since. Reads only. Prints lines
# `at<TAB>RUN<TAB>KEY<TAB>VALUE`, folders in the order of their names, which is that of time.
report() { say at "$change$tab$1$tab$2"; }
# modified FILE: when it was last written, in seconds
modified() { stat -c %Y "$1"; }

if [ -r "$state_dir/lock/owner" ]; then say lock "$(head -n 1 "$state_dir/lock/owner")"; fi
for folder in "$state_dir/$fleet"/*/; do
  folder=${folder%/}
  [ -d "$folder" ] || continue
  change=${folder##*/}
  report bytes "$(du -sk "$folder" | awk '{ print $1 * 1024 }')"
  [ ! -f "$folder/manifest.json" ] || report manifest yes
  for mark in core-v2-started core-stopped-at agent-switched rolled-back-at restored-at; do
    [ ! -f "$folder/$mark" ] || report "$mark" "$(modified "$folder/$mark")"
  done
  for mark in "$folder"/switch-*; do
    case ${mark##*/switch-} in
      *[!0-9]*) ;;
      *) report switched "$(modified "$mark")" ;;
    esac
  done
  for attempt in "$folder"/jobs/*/*/; do
    attempt=${attempt%/}
    case ${attempt##*/} in
      *[!0-9]*) ;;
      *) report attempt "${attempt##*/}" ;;
    esac
  done
  if [ -f "$folder/restore.list" ]; then
    # The list of a server has `file` lines, that of Core has `saved` lines.
    awk -F "$tab" -v OFS="$tab" '
      $1 == "file" { print $3, $6, $7 }
      $1 == "saved" { print $2, $3, $4 }
    ' "$folder/restore.list" | while IFS="$tab" read -r digest name path; do
      [ "$(sha256_of "$folder/files/$name")" = "$digest" ] || report broken "$folder/files/$name"
      file_digest "$path"
      [ "$sha256" = "$digest" ] || report differs "$path$tab$sha256"
    done
    core=$(sed -n "s/^core_container$tab//p" "$folder/restore.list" | head -n 1)
    if [ -n "$core" ] && docker inspect "$core" 2>/dev/null | tr ',' '\n' | grep -q '"Running": *true'; then
      report running "$core"
    fi
  fi
  if command -v docker >/dev/null 2>&1; then
    lower=$(printf '%s' "$change" | tr '[:upper:]' '[:lower:]')
    for what in core-old core-new agent-old agent-new; do
      pin=komodo-upgrade-keep-$lower-$what
      if docker inspect "$pin" >/dev/null 2>&1; then report image_pin "$pin"; fi
    done
    if [ -f "$folder/image-pins" ]; then
      while IFS= read -r pin; do
        if docker inspect "$pin" >/dev/null 2>&1; then report image_pin "$pin"; fi
      done <"$folder/image-pins"
    fi
  fi
done
