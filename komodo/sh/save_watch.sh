# shellcheck shell=sh
# save_watch.sh FOLDER HEADING LINES: standard input has LINES lines, the new last section of report.md (one that begins with
# HEADING is replaced), and then the text of watch.json. Takes no lock and may be repeated: only our own two files change.
folder=$1
heading=$2
lines=$3
[ -d "$folder" ] || die 1 "the run's folder $folder is gone"
umask 077
temp=$folder/.watch.$$
trap 'rm -f -- "$temp".*' EXIT
cat >"$temp.all"
head -n "$lines" "$temp.all" >"$temp.section"
tail -n "+$((lines + 1))" "$temp.all" >"$temp.json"
if [ -f "$folder/report.md" ]; then
  awk -v heading="$heading" '$0 == heading { exit } { print }' "$folder/report.md" >"$temp.md"
else
  : >"$temp.md"
fi
cat "$temp.section" >>"$temp.md"
fsync_file "$temp.md"
mv -f -- "$temp.md" "$folder/report.md"
mv -f -- "$temp.json" "$folder/watch.json"
say saved "$folder/report.md"
say saved "$folder/watch.json"
