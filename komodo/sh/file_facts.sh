# shellcheck shell=sh
# file_facts.sh PATH...: digest, mode and owner of each file. Changes nothing.
for path in "$@"; do
  shift
  if [ -f "$path" ]; then
    set -- "$@" "$path"
  else
    say missing "$path"
  fi
done
[ $# -gt 0 ] || exit 0
digests "$@"
facts=$(stat -L -c "%a$tab%u:%g" -- "$@")
for path in "$@"; do
  next_sum
  say file "$path$tab$sha256$tab${facts%%"$ku_line_break"*}"
  facts=${facts#*"$ku_line_break"}
done
