# shellcheck shell=sh
# A new dump in the run folder $folder, with the name $label, by whichever tool.
#
# begin_dump KIND: sets $path to the first free name in FOLDER/dumps, $part to the file for the unfinished dump, and
# records the time. All files whose names begin with $part are removed when the script ends.
begin_dump() {
  dumps=$folder/dumps
  mkdir -p "$dumps"
  chmod 700 "$folder" "$dumps"
  path=$dumps/$label.$1
  dump_number=1
  while [ -e "$path" ]; do
    dump_number=$((dump_number + 1))
    path=$dumps/$label.$dump_number.$1
  done
  part=$path.part
  trap 'rm -rf "$part" "$part.log" "$part.d"' EXIT
  # A signal without a trap would leave them.
  trap 'exit 143' HUP INT TERM
  rm -rf "$part" "$part.d"
  dump_began=$(date +%s)
  dump_taken=$(date -u +%Y-%m-%dT%H:%M:%SZ)
}

# check_dump_space: ends the script if the tool's log says that the disk is full.
check_dump_space() {
  if grep -qi 'no space left' "$part.log"; then
    die 70 "No space left on device while dumping to $part; the unfinished dump was removed"
  fi
}

# end_dump: puts the complete dump in place, and describes it.
end_dump() {
  dump_size=$(stat -c %s "$part")
  dump_digest=$(sha256_of "$part")
  mv "$part" "$path"
  fsync_file "$dumps"
  say path "$path"
  say bytes "$dump_size"
  say sha256 "$dump_digest"
  say taken "$dump_taken"
  say seconds "$(($(date +%s) - dump_began))"
}
