# shellcheck shell=sh
# look_at_key_pair.sh KEYS_DIR: Core's key pair, where there is one already. Says the public part of core.pub and, where
# openssl is installed, the one that belongs to core.key. Changes nothing; the private part is said to nobody.
keys=$1
[ -e "$keys/core.key" ] || exit 0
if [ -s "$keys/core.key" ]; then say private there; else say private empty; fi
[ ! -s "$keys/core.pub" ] || say public "$(cat "$keys/core.pub")"
if command -v openssl >/dev/null 2>&1; then
  say belongs "$(openssl pkey -in "$keys/core.key" -passin pass: -pubout 2>/dev/null </dev/null || :)"
fi
