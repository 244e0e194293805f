# shellcheck shell=sh
# dead_man_call.sh FOLDER state|disarm: the run folder's own dead-man.sh, the same that a person would run
if [ -f "$1/dead-man.sh" ]; then
  sh "$1/dead-man.sh" "$2"
else
  say none ''
fi
