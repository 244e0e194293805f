# shellcheck shell=sh
# remove_image_pins.sh CONTAINER…: removes the created, never started containers that pin the images of an upgrade, and
# the images that nothing else uses.
for container; do
  image=$(docker inspect "$container" 2>/dev/null | tr ',' '\n' | sed -n 's/.*"Image": *"\(sha256:[0-9a-f]*\)".*/\1/p' | head -n 1)
  [ -n "$image" ] || continue
  docker rm "$container" >/dev/null
  say removed "container $container"
  # docker refuses this if a container or another name still needs the image.
  if docker rmi "$image" >/dev/null 2>&1; then say removed "image $image"; fi
done
