# shellcheck shell=sh
# needs: lib/files.sh
# foreign_files.sh FILE…: those that cannot be replaced, because the owner of the folder does not own the file. Reads
# only.
look_up "$@"
say_foreign "$@"
