# shellcheck shell=sh
# compose_images COMPOSE…: sets $images to the images that compose would start, one a line. Fails, and sets it empty, if
# compose does not accept the project. docker-compose 1.x does not know `config --images`: it prints its usage, and may
# succeed nevertheless.
compose_images() {
  images=$("$@" config --images 2>/dev/null) || images=
  case $images in *Usage:*) images= ;; esac
  [ -z "$images" ] || return 0
  images=$("$@" config 2>/dev/null) || {
    images=
    return 1
  }
  images=$(printf '%s\n' "$images" | sed -n 's/^    image: *//p' | tr -d "\"'")
}
