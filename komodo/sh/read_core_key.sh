# shellcheck shell=sh
# read_core_key.sh FOLDER KEY_FILE: Core's private key into the run folder (never over the connection), and how it lies.
folder=$1
key=$2
if [ ! -e "$key" ]; then
    say missing "$key"
    exit 0
fi
# An empty key file is a valid all-zero private key for Komodo.
[ -s "$key" ] || die 1 "$key is empty: Core would use a private key that everybody knows"
say saved "$(keep_copy "$key" "$folder/core.key")"
chmod 600 "$folder/core.key"
say owner "$(stat -c '%u:%g' "$key")"
say mode "$(stat -c '%a' "$key")"
