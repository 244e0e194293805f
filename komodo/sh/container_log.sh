# shellcheck shell=sh
# container_log.sh CONTAINER SINCE LINES: both streams of its log. SINCE may be empty. Reads only.
if [ -n "$2" ]; then
    docker logs --since "$2" "$1" 2>&1 | tail -n "$3"
else
    docker logs "$1" 2>&1 | tail -n "$3"
fi
