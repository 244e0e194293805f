# shellcheck shell=sh
# params: url
# Whether this host reaches Core under an address, with a certificate that it trusts. Reads only.
if ! command -v curl >/dev/null 2>&1; then
  say problem "there is no curl on this host"
elif body=$(curl -sS --connect-timeout 10 --max-time 20 --max-filesize 1048576 "$url/version" 2>&1); then
  in_one_line "$(printf '%s' "$body" | head -c 60)"
  say answer "$line "
else
  in_one_line "$(printf '%s' "$body" | tail -n 1 | head -c 200)"
  say problem "${line:-curl failed}"
fi
