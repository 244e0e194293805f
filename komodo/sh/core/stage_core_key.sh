# shellcheck shell=sh
# needs: lib/files.sh
# params: folder keys image
# Core's key pair before the new Core runs, made by the very image that will use it. An existing pair (in `keys`, or
# from an earlier call in FOLDER/staged) is used as it is; a second one is never made. Prints the public part only; the
# private part goes from the container into a file of root.
# Exit codes of its own: 78 the image could not make a pair, 79 core.pub is not the public part of core.key.
staged=$folder/staged
pair=$staged/.pair.$$
trap 'rm -f -- "$pair" "$staged/core.key.part" "$staged/core.pub.part"' EXIT
# A signal without a trap would leave them.
trap 'exit 143' HUP INT TERM

# pem WORDS FIELD FORM FILE: writes one field of km's answer to a PEM file of mode 0600.
pem() {
  {
    echo "-----BEGIN $1 KEY-----"
    sed -n "s/.*\"$2\" *: *\"\([A-Za-z0-9+/=]*\)\".*/\1/p" "$pair"
    echo "-----END $1 KEY-----"
  } >"$4.part"
  if ! { [ "$(wc -l <"$4.part")" -eq 3 ] && sed -n 2p "$4.part" | grep -Eq "^$3\$"; }; then
    die 78 "km of $image did not answer with a key pair of the known form"
  fi
  chmod 600 "$4.part"
  fsync_file "$4.part"
  mv -f -- "$4.part" "$4"
}

place=$keys
how=found
if [ ! -e "$keys/core.key" ]; then
  place=$staged
  if [ ! -e "$staged/core.key" ]; then
    how=made
    mkdir -p "$staged"
    chmod 700 "$folder" "$staged"
    # Without a log driver docker stores no copy of the output, and without a network the container can send it nowhere.
    docker run --rm --log-driver none --network none --entrypoint km "$image" key generate --format json >"$pair" ||
      die 78 "km of $image did not run"
    # The private part last: once it is there, both are.
    pem PUBLIC public_key 'MCowBQYDK2VuAyEA[A-Za-z0-9+/]{43}=' "$staged/core.pub"
    pem PRIVATE private_key 'MC4CAQAwBQYDK2VuBCIEI[A-Za-z0-9+/]{43}' "$staged/core.key"
    fsync_file "$staged"
  fi
fi
# An empty key file is a valid all-zero private key for Komodo.
[ -s "$place/core.key" ] || die 1 "$place/core.key is empty: Core would use a private key that is publicly known"
[ -s "$place/core.pub" ] || die 79 "there is $place/core.key, but no core.pub next to it"
require_readable "$place/core.pub"
require_readable "$place/core.key"
public=$(read_as_owner "$place/core.pub")
belongs=$(read_as_owner "$place/core.key" | openssl pkey -passin pass: -pubout 2>/dev/null || :)
[ -z "$belongs" ] || printf '%s\n' "$belongs" | grep -qxF "$(printf '%s\n' "$public" | sed -n 2p)" ||
  die 79 "$place/core.pub does not belong to the core.key next to it"
say how "$how"
say place "$place/core.key"
say public "$public"
