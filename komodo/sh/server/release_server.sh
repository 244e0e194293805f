# shellcheck shell=sh
# needs: lib/files.sh
# params: folder
# release_server.sh [CONTAINER…]: removes what was staged, and these image pins; backups stay. On Core's host the staged
# files stay once v2 was started: a rollback that fails needs them to return to v2.
if [ -f "$folder/dead-man/armed" ]; then
  sh "$folder/dead-man.sh" disarm >/dev/null
  say removed "the automatic rollback timer"
fi
# The staged binary also has a second name next to the running one.
if [ -f "$folder/staged/beside" ]; then
  while IFS= read -r file; do
    if [ -e "$file" ] || [ -L "$file" ]; then as_owner "$file" remove_file "$file"; fi
  done <"$folder/staged/beside"
fi
if [ -d "$folder/staged" ] && [ ! -e "$folder/core-v2-started" ]; then
  rm -rf -- "$folder/staged"
  say removed "$folder/staged"
fi
# The images of an agent in a container: a rollback needs the old one as long as the new version is in place.
if [ -f "$folder/image-pins" ]; then
  in_place=
  for mark in "$folder"/switch-*; do [ ! -s "$mark" ] || in_place=yes; done
  [ ! -e "$folder/restored-at" ] || in_place=
  if [ -z "$in_place" ]; then
    while IFS= read -r pin; do set -- "$@" "$pin"; done <"$folder/image-pins"
    rm -f -- "$folder/image-pins"
  fi
fi
for container in "$@"; do
  if docker inspect "$container" >/dev/null 2>&1; then
    docker rm "$container" >/dev/null
    say removed "container $container"
  fi
done
