# shellcheck shell=sh
# needs: lib/files.sh
# needs: lib/user_unit.sh
# needs: lib/arming.sh
# needs: lib/switching.sh
# params: mark unit binary version wait url expected config? base? result? key_file? core_key? auto_rollback? scope?
# As switch_agent.sh, with Komodo's own setup script (from `url`) instead of a staged binary. That script deletes the
# old binary before it downloads the new one and does not wait for the agent, so the agent is stopped first.
# Exit codes of its own:
#   76 the download failed   77 the installed binary does not have the sha256 `expected`   78 it does not report `version`
use_manager "$scope"
script=$mark.setup-periphery.py

# The setup script writes as root.
require_root_only "${binary%/*}"
installed() { [ -f "$binary" ] && [ "$(sha256_of "$binary")" = "$expected" ]; }

if ! installed; then
  curl -fsSL --proto-redir =https --connect-timeout 15 --retry 2 --speed-limit 1 --speed-time 60 -o "$script" "$url" || die 76 "curl could not download $url; nothing was changed"
  grep -q '^import ' "$script" || die 76 "$url is not a Python script; nothing was changed"
fi
arm "${auto_rollback:-0}"
remember
if [ -n "$key_file" ]; then write_key; fi
if [ -n "$config" ]; then write_config; fi
if ! installed; then
  stopping
  systemctl stop "$unit"
  # It only adds the x bits to what its umask leaves: with umask 077 only root could run the agent (User= in its unit).
  (umask 022 && HOME=${HOME:-/root} exec python3 "$script" "--version=v$version") >&2 </dev/null ||
    die 76 "Komodo's setup script failed"
  if ! installed; then
    # The script has started the agent already.
    systemctl stop "$unit"
    die 77 "Komodo's setup script installed a binary with the sha256 $(sha256_of "$binary"), expected $expected"
  fi
  "$binary" --version 2>/dev/null </dev/null | grep -qxF "periphery $version" ||
    die 78 "after Komodo's setup script $binary does not report version $version"
fi
new_run
await_run "$wait"
say sha256 "$(sha256_of "$binary")"
