# shellcheck shell=sh
# params: container
# The container of an agent, the Docker engine and Compose. Reads only. Facts first, then the line `-- containers --` and
# `docker inspect` of the container.
engine=$(docker version --format '{{.Server.Version}} {{.Server.APIVersion}}' 2>/dev/null) || engine=
say engine "$engine"
if output=$(docker compose version --short 2>/dev/null); then
  say compose "$output"
elif command -v docker-compose >/dev/null 2>&1; then
  say compose_old "$(docker-compose version --short 2>/dev/null)"
fi
# Its log may no longer reach back to its start.
say version "$(docker exec "$container" periphery --version 2>/dev/null </dev/null | head -n 1 || :)"
if [ -d /var/lib/docker ]; then
  free=$(df -Pk /var/lib/docker | awk 'NR == 2 { print $4 }')
  say docker_free "$((free * 1024))"
fi
printf '%s\n' '-- containers --'
docker inspect "$container" 2>/dev/null || :
