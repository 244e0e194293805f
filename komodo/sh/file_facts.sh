# shellcheck shell=sh
# file_facts.sh PATH...: digest, mode and owner of each file. Changes nothing.
tab=$(printf '\t')
for path in "$@"; do
  if [ -f "$path" ]; then
    digest=$(sha256_of "$path")
    say file "$path$tab$digest$tab$(stat -L -c "%a$tab%u:%g" "$path")"
  else
    say missing "$path"
  fi
done
