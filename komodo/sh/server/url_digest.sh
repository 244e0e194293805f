# shellcheck shell=sh
# params: url
# The sha256 of what `url` answers, without keeping it. Reads only. Exit code of its own: 76 the download failed.
# Only curl: wget follows a redirect that leaves https, and the plan is bound to this digest.
command -v curl >/dev/null 2>&1 || die 76 "this host could not download $url either: it has no curl"
fetch() {
  curl -fsSL --proto '=https' --proto-redir '=https' --max-filesize 536870912 --connect-timeout 15 --retry 2 \
    --speed-limit 1 --speed-time 60 "$url"
}

# Descriptor 3 carries the exit code past the pipe.
code=
sums=$({ { fetch && echo "code 0" >&3 || echo "code $?" >&3; } | sha256sum; } 3>&1)
value=
while IFS=' ' read -r first second; do
  if [ "$first" = code ]; then code=$second; else value=$first; fi
done <<EOF
$sums
EOF
[ "$code" = 0 ] || die 76 "this host could not download $url either (exit code $code)"
say sha256 "$value"
