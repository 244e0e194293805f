# shellcheck shell=sh
# Several files in one standard input, one after the other: values with secrets reach a host this way, never as
# arguments.

# take_parts FOLDER: stores standard input there until end_parts. It is removed however the script ends.
take_parts() {
  ku_parts=$1/.parts.$$
  ku_offset=1
  ku_part=
  trap 'rm -f "$ku_parts" ${ku_part:+"$ku_part"}' EXIT
  # A signal without a trap would leave it.
  trap 'exit 143' HUP INT TERM
  cat >"$ku_parts"
}

# next_part BYTES FILE: the next bytes become FILE, mode 0600.
next_part() {
  ku_part=$2.part
  tail -c "+$ku_offset" "$ku_parts" | head -c "$1" >"$2.part"
  if [ "$(stat -c %s "$2.part")" != "$1" ]; then
    die 74 "$2 did not arrive complete; nothing was changed"
  fi
  fsync_file "$2.part"
  mv -f "$2.part" "$2"
  ku_offset=$((ku_offset + $1))
}

end_parts() {
  rm -f "$ku_parts"
}
