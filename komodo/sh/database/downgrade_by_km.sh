# shellcheck shell=sh
# needs: lib/km.sh
# params: image network
# `km database v1-downgrade` of the new version. Standard input is km's environment.
log=$(mktemp)
trap 'rm -f "$log"' EXIT
code=0
km "$image" "$network" - "$log" v1-downgrade || code=$?
if [ "$code" -ne 0 ]; then
  km_output "$log" >&2
  die 1 "km ended with $code"
fi
say output "$(km_output "$log" | tail -n 1)"
