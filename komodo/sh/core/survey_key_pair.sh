# shellcheck shell=sh
# needs: lib/files.sh
# params: keys pair
# The key pair PAIR.key, if there is one: prints the public part from PAIR.pub and, where openssl is installed, the one
# that belongs to PAIR.key. The private part is never printed. Reads only.
[ -e "$keys/$pair.key" ] || exit 0
if [ -s "$keys/$pair.key" ]; then say private there; else say private empty; fi
if [ -s "$keys/$pair.pub" ]; then
  require_readable "$keys/$pair.pub"
  say public "$(read_as_owner "$keys/$pair.pub")"
fi
if command -v openssl >/dev/null 2>&1; then
  require_readable "$keys/$pair.key"
  say belongs "$(read_as_owner "$keys/$pair.key" | openssl pkey -passin pass: -pubout 2>/dev/null || :)"
fi
