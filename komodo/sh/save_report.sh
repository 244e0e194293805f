# shellcheck shell=sh
# needs: parts.sh
# save_report.sh FOLDER BYTES_MD BYTES_JSON: report.md and report.json, both on standard input.
folder=$1
mkdir -p "$folder"
chmod 700 "$folder"
take_parts "$folder"
next_part "$2" "$folder/report.md"
next_part "$3" "$folder/report.json"
end_parts
say saved "$folder/report.md"
say saved "$folder/report.json"
