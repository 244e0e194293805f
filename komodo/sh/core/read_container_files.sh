# shellcheck shell=sh
# params: container
# read_container_files.sh PATH…: small files inside a container, in base64; one that is not there is left out. Reads
# only.
for path; do
  text=$(docker cp -L "$container:$path" - 2>/dev/null | tar -xOf - 2>/dev/null | head -c 4096 | base64) || text=
  in_one_line "$text"
  if [ -n "$line" ]; then say file "$path$tab$line"; fi
done
