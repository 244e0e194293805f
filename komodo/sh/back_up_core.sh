# shellcheck shell=sh
# needs: parts.sh
# back_up_core.sh FOLDER SUFFIX [part BYTES NAME]… [file PATH SHA256 NAME yes|no]…: Core's run folder. Standard input
# holds the parts. `yes`: also a copy beside the file with the upgrade guide's name, PATH+SUFFIX.
folder=$1
suffix=$2
shift 2
mkdir -p "$folder/files"
chmod 700 "$folder" "$folder/files"
take_parts "$folder"
while [ "${1:-}" = part ]; do
    next_part "$2" "$folder/$3"
    shift 3
done
end_parts
chmod 700 "$folder/restore.sh"
while [ "${1:-}" = file ]; do
    [ "$(sha256_of "$2")" = "$3" ] || die 72 "$2 was changed after it was read for the backup; nothing was upgraded"
    saved=$(keep_copy "$2" "$folder/files/$4")
    [ "$saved" = "$folder/files/$4" ] || die 72 "$folder/files/$4 holds another $2 already; it was left as it is"
    beside=
    if [ "$5" = yes ]; then beside=$(keep_copy "$2" "$2$suffix"); fi
    say saved "$2	$saved	$3	$beside"
    shift 5
done
fsync_file "$folder"
say taken "$(date -u +%Y-%m-%dT%H:%M:%SZ)"
