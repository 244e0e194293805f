# shellcheck shell=sh
# published_digests.sh REF…: the digest under which the registry has each image at present, asked by this host. Reads
# only. An image about which neither buildx nor the engine gets an answer is left out.
limited() {
  if command -v timeout >/dev/null 2>&1; then timeout 20 "$@"; else "$@"; fi
}
socket=${DOCKER_HOST:-unix:///var/run/docker.sock}
for image; do
  case $image in *[!A-Za-z0-9._:/@-]* | -*) continue ;; esac
  found=$(limited docker buildx imagetools inspect "$image" 2>/dev/null | sed -n 's/^Digest: *//p' | head -n 1) || found=
  case "$found $socket" in
    " unix://"*)
      # The engine's own request, as `docker pull` makes it (API 1.30): through its mirrors, without a login.
      found=$(limited curl -fsS --max-time 20 --unix-socket "${socket#unix://}" \
        "http://localhost/distribution/$image/json" 2>/dev/null | head -c 65536 |
        sed -n 's/.*"digest": *"\(sha256:[0-9a-f]*\)".*/\1/p' | head -n 1) || found=
      ;;
  esac
  case $found in sha256:*[!0-9a-f]* | sha256:) ;; sha256:*) say digest "$image $found" ;; esac
done
