# shellcheck shell=sh
# release_server.sh FOLDER [CONTAINER...]: what was staged goes; backups stay. On Core's host, once v2 was started, the
# staged files stay: a way back that fails leads forward again with them.
folder=$1
shift
if [ -f "$folder/dead-man/armed" ]; then
  sh "$folder/dead-man.sh" disarm >/dev/null
  say removed "the dead-man timer"
fi
# The new binary waits under a second name beside the running one, too.
if [ -f "$folder/staged/beside" ]; then
  while IFS= read -r file; do rm -f -- "$file"; done <"$folder/staged/beside"
fi
if [ -d "$folder/staged" ] && [ ! -e "$folder/core-v2-started" ]; then
  rm -rf -- "$folder/staged"
  say removed "$folder/staged"
fi
for container in "$@"; do
  if docker inspect "$container" >/dev/null 2>&1; then
    docker rm "$container" >/dev/null
    say removed "container $container"
  fi
done
