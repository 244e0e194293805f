# shellcheck shell=sh
# params: folder verb
# Runs the dead-man.sh of a run folder, the same file that an operator would run. `verb`: state or disarm.
if [ -f "$folder/dead-man.sh" ]; then
  sh "$folder/dead-man.sh" "$verb"
else
  say none ''
fi
