# shellcheck shell=sh
# needs: lib/files.sh
# params: folder key
# Copies Core's private key into the run folder (it never crosses the connection) and prints its owner and mode.
if [ ! -e "$key" ]; then
  say missing "$key"
  exit 0
fi
# An empty key file is a valid all-zero private key for Komodo.
[ -s "$key" ] || die 1 "$key is empty: Core would use a private key that is publicly known"
file_digest "$key"
save_copy "$key" "$folder/core.key" "$sha256"
chmod 600 "$folder/core.key"
say saved "$folder/core.key"
facts_of "$key" || look_up "$key"
facts_of "$key"
say owner "$ku_f_uid:$ku_f_gid"
say mode "$ku_f_mode"
