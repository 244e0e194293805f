# shellcheck shell=sh
# needs: lib/files.sh
# file_facts.sh PATH…: digest, mode and owner of each file. Reads only.
look_up "$@"
sums=
for path; do
  shift
  ku_identity "$path"
  if ! facts_of "$path"; then
    say missing "$path"
  elif [ -n "$ku_uid" ]; then
    file_digest "$path"
    facts_of "$path"
    say file "$path$tab$sha256$tab$ku_f_mode$tab$ku_f_uid:$ku_f_gid"
  else
    set -- "$@" "$path"
  fi
done
[ $# -gt 0 ] || exit 0
digests "$@"
for path; do
  next_sum
  facts_of "$path"
  say file "$path$tab$sha256$tab$ku_f_mode$tab$ku_f_uid:$ku_f_gid"
done
