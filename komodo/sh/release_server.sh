# shellcheck shell=sh
# release_server.sh FOLDER [CONTAINER...]: what was staged and not used goes; backups stay
folder=$1
shift
if [ -d "$folder/staged" ]; then
  rm -rf -- "$folder/staged"
  say removed "$folder/staged"
fi
for container in "$@"; do
  if docker inspect "$container" >/dev/null 2>&1; then
    docker rm "$container" >/dev/null
    say removed "container $container"
  fi
done
