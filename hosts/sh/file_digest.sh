# shellcheck shell=sh
# params: path
# Digest and mode of a file; prints nothing if there is none.
if [ -f "$path" ]; then
  say sha256 "$(sha256_of "$path")"
  say mode "$(stat -L -c %a "$path")"
fi
