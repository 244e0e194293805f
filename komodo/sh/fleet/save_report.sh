# shellcheck shell=sh
# needs: lib/input_parts.sh
# params: folder markdown_bytes json_bytes
# Writes report.md and report.json, both from standard input.
mkdir -p "$folder"
chmod 700 "$folder"
take_parts "$folder"
next_part "$markdown_bytes" "$folder/report.md"
next_part "$json_bytes" "$folder/report.json"
end_parts
say saved "$folder/report.md"
say saved "$folder/report.json"
