# shellcheck shell=sh
# file_facts.sh PATH...: digest, mode and owner of each file. Changes nothing.
for path in "$@"; do
  if [ -f "$path" ]; then
    digest "$path"
    say file "$path$tab$sha256$tab$(stat -L -c "%a$tab%u:%g" "$path")"
  else
    say missing "$path"
  fi
done
