# shellcheck shell=sh
# A new dump in a run folder, by whichever tool.
#
# dump_begins FOLDER LABEL KIND: sets `path`, the first name in FOLDER/dumps that is free, `part` for the unfinished dump,
# and when it began. Whatever is named like `part` goes away with the script.
dump_begins() {
    dumps=$1/dumps
    mkdir -p "$dumps"
    chmod 700 "$1" "$dumps"
    path=$dumps/$2.$3
    dump_number=1
    while [ -e "$path" ]; do
        dump_number=$((dump_number + 1))
        path=$dumps/$2.$dump_number.$3
    done
    part=$path.part
    trap 'rm -rf "$part" "$part.log" "$part.d"' EXIT
    # An untrapped signal would leave all of it.
    trap 'exit 143' HUP INT TERM
    rm -rf "$part" "$part.d"
    dump_began=$(date +%s)
    dump_taken=$(date -u +%Y-%m-%dT%H:%M:%SZ)
}

# dump_full: does the tool's log say that the disk is full? Then the script ends.
dump_full() {
    if grep -qi 'no space left' "$part.log"; then
        die 70 "No space left on device while dumping to $part; the unfinished dump was removed"
    fi
}

# dump_ends: `part` is whole, so it is put in place, and described.
dump_ends() {
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
