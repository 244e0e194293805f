# shellcheck shell=sh
# params: image
# Runs the new agent's image once on this host, and its Docker CLI against this host's engine; the container is removed.
# `client` is the error of that CLI where it cannot speak to the engine; an image without a CLI has none to say.
run_once() { docker run --rm --network none --entrypoint "$@" 2>&1 </dev/null; }
output=$(run_once periphery "$image" --version) || output="failed: $output"
in_one_line "$output"
say version "$line"
socket=${DOCKER_HOST:-unix:///var/run/docker.sock}
case $socket in
  unix://*)
    socket=${socket#unix://}
    code=0
    output=$(run_once docker -v "$socket:/var/run/docker.sock" "$image" version --format '{{.Server.Version}}') || code=$?
    # docker ends with 126 or 127 where there is no such program in the image.
    case $code in
      0 | 126 | 127) ;;
      *)
        in_one_line "$output"
        say client "$line"
        ;;
    esac
    ;;
esac
