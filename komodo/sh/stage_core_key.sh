# shellcheck shell=sh
# stage_core_key.sh FOLDER KEYS_DIR IMAGE: Core's key pair before the new Core runs, made by the very image that will
# use it. A pair that is there already (in KEYS_DIR, or from an earlier call in FOLDER/staged) is taken as it is: never a
# second one over the first. Says the public part only; the private one goes from the container into a file of root's.
# 78: the image could not make one. 79: there is a private key, but core.pub beside it is not its public part.
folder=$1
keys=$2
image=$3
staged=$folder/staged
pair=$staged/.pair.$$
trap 'rm -f -- "$pair" "$staged/core.key.part" "$staged/core.pub.part"' EXIT

# pem WORDS FIELD FORM FILE: one field of km's answer as a PEM file of mode 0600.
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
    # Without a log driver docker keeps no copy of what the container says; without a network nobody else hears it.
    docker run --rm --log-driver none --network none --entrypoint km "$image" key generate --format json >"$pair" ||
      die 78 "km of $image did not run"
    # The private part last: once it is there, both are.
    pem PUBLIC public_key 'MCowBQYDK2VuAyEA[A-Za-z0-9+/]{43}=' "$staged/core.pub"
    pem PRIVATE private_key 'MC4CAQAwBQYDK2VuBCIEI[A-Za-z0-9+/]{43}' "$staged/core.key"
    fsync_file "$staged"
  fi
fi
# An empty key file is a valid all-zero private key for Komodo.
[ -s "$place/core.key" ] || die 1 "$place/core.key is empty: Core would use a private key that everybody knows"
[ -s "$place/core.pub" ] || die 79 "there is $place/core.key, but no core.pub beside it"
belongs=$(openssl pkey -in "$place/core.key" -passin pass: -pubout 2>/dev/null </dev/null || :)
[ -z "$belongs" ] || printf '%s\n' "$belongs" | grep -qxF "$(sed -n 2p "$place/core.pub")" ||
    die 79 "$place/core.pub does not belong to the core.key beside it"
say how "$how"
say place "$place/core.key"
say public "$(cat "$place/core.pub")"
