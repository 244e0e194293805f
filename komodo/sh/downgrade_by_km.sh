# shellcheck shell=sh
# needs: km.sh
# downgrade_by_km.sh IMAGE NETWORK: `km database v1-downgrade` of the new version. Standard input is km's environment.
log=$(mktemp)
trap 'rm -f "$log"' EXIT
code=0
km "$1" "$2" - "$log" v1-downgrade || code=$?
if [ "$code" -ne 0 ]; then
    km_said "$log" >&2
    die 1 "km ended with $code"
fi
say said "$(km_said "$log" | tail -n 1)"
