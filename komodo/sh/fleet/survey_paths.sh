# shellcheck shell=sh
# needs: lib/files.sh
# params: state_dir
# survey_paths.sh FILE…: digest, owner and mode of each file (`-` where there is none), and the free space. Reads only.
state=$state_dir
while [ ! -d "$state" ]; do
  state=${state%/*}
  [ -n "$state" ] || state=/
done
free=$(df -Pk "$state" | awk 'NR == 2 { print $4 }')
say free "$((free * 1024))"
for file in "$@"; do
  if [ -d "$file" ]; then
    say file "-	$(stat -c '%u:%g	%a' "$file")	$file"
  elif [ -e "$file" ]; then
    file_digest "$file"
    say file "$sha256	$(stat -c '%u:%g	%a' "$file")	$file"
  else
    say file "-	-	-	$file"
  fi
done
