# shellcheck shell=sh
# params: folder heading lines
# Standard input has `lines` lines, the new last section of report.md (it replaces the one that begins with `heading`),
# and then the text of watch.json. Takes no lock and may be repeated: it changes only these two files.
[ -d "$folder" ] || die 1 "the run folder $folder is gone"
temp=$folder/.watch.$$
trap 'rm -f -- "$temp".*' EXIT
# A signal without a trap would leave them.
trap 'exit 143' HUP INT TERM
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
