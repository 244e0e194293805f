# shellcheck shell=sh
# run_restore.sh FOLDER: the run folder's own restore.sh, the same that a person would run
folder=$1
[ -f "$folder/restore.sh" ] || die 74 "there is no $folder/restore.sh"
sh "$folder/restore.sh"
