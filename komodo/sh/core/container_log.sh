# shellcheck shell=sh
# params: container since? lines
# The last lines of both streams of a container's log. Reads only.
if [ -n "$since" ]; then
  docker logs --since "$since" "$container" 2>&1 | tail -n "$lines"
else
  docker logs "$container" 2>&1 | tail -n "$lines"
fi
