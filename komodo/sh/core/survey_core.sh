# shellcheck shell=sh
# needs: lib/files.sh
# params: state_dir
# What docker knows on Core's host. Reads only. Facts first, then the line `-- containers --` and `docker inspect` of
# every container.
state=$state_dir
while [ ! -d "$state" ]; do
  state=${state%/*}
  [ -n "$state" ] || state=/
done
free=$(df -Pk "$state" | awk 'NR == 2 { print $4 }')
say free "$((free * 1024))"
# As in survey_files.sh: identifies the folder and its machine.
require_root_only "$state_dir"
say state_place "$(cat /proc/sys/kernel/random/boot_id 2>/dev/null || :) $(stat -c %d:%i "$state") ${state_dir#"$state"}"
if [ -d /var/lib/docker ]; then
  free=$(df -Pk /var/lib/docker | awk 'NR == 2 { print $4 }')
  say docker_free "$((free * 1024))"
fi
if ! command -v docker >/dev/null 2>&1; then
  say problem 'docker is not installed, or not in PATH'
  exit 0
fi
if ! output=$(docker version --format '{{.Server.Version}}' 2>&1); then
  say problem "docker does not answer: $output"
  exit 0
fi
say docker "$output"
if output=$(docker compose version --short 2>/dev/null); then
  say compose "$output"
elif command -v docker-compose >/dev/null 2>&1; then
  say compose_old "$(docker-compose version --short 2>/dev/null)"
fi
printf '%s\n' '-- containers --'
ids=$(docker ps -a --no-trunc --format '{{.ID}}')
if [ -n "$ids" ]; then
  # shellcheck disable=SC2086 # one word per container
  docker inspect $ids
fi
