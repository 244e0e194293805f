# shellcheck shell=sh
# params: folder
# Runs the restore.sh of a run folder, the same file that an operator would run.
[ -f "$folder/restore.sh" ] || die 74 "there is no $folder/restore.sh"
sh "$folder/restore.sh"
