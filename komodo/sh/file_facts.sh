# shellcheck shell=sh
# file_facts.sh PATH...: digest, mode and owner of each file. Changes nothing.
tab=$(printf '\t')
for path in "$@"; do
  if [ -f "$path" ]; then
    say file "$path$tab$(sha256_of "$path")$tab$(stat -L -c '%a' "$path")$tab$(stat -L -c '%u:%g' "$path")"
  else
    say missing "$path"
  fi
done
