# shellcheck shell=sh
# use_approved IMAGE APPROVED: makes the tag that compose starts name the approved image (NAME@DIGEST), whatever was
# pulled since. APPROVED empty: the reference in the compose file holds the digest itself.
use_approved() {
  [ -n "$2" ] || return 0
  docker tag "$2" "$1" >&2 || die 1 "the approved image $2 is not on this host any more; nothing was started"
}
