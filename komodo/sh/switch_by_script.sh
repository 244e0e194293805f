# shellcheck shell=sh
# needs: switching.sh
# switch_by_script.sh MARK UNIT BINARY VERSION WAIT SCRIPT_URL CONFIG BASE_SHA RESULT_SHA DEAD_MAN
# As switch_agent.sh, with Komodo's own setup script instead of a staged binary. That script deletes the old binary
# before it downloads the new one and waits for nothing, so the agent is stopped here first. Exit code 76: no download,
# 78: the binary that it left does not say the version.
mark=$1
unit=$2
binary=$3
version=$4
wait=$5
url=$6
shift 6
script=$mark.setup-periphery.py

installed() { "$binary" --version 2>/dev/null </dev/null | grep -qxF "periphery $version"; }

if ! installed; then
  curl -fsSL --connect-timeout 15 --retry 2 --speed-limit 1 --speed-time 60 -o "$script" "$url" || die 76 "curl could not download $url; nothing was changed"
  grep -q '^import ' "$script" || die 76 "$url is no Python script; nothing was changed"
fi
arm "${4:-0}"
remember
if [ -n "$1" ]; then write_config "$1" "$2" "$3"; fi
if ! installed; then
  stopping
  systemctl stop "$unit"
  # It only adds the x to what its umask leaves: with ours nobody but root could run the agent (User= in its unit).
  (umask 022 && HOME=${HOME:-/root} exec python3 "$script" "--version=v$version") >&2 </dev/null \
    || die 76 "Komodo's setup script failed"
  installed || die 78 "after Komodo's setup script $binary does not say $version"
fi
new_run
await_run "$wait"
say sha256 "$(sha256_of "$binary")"
