# shellcheck shell=sh
# needs: lib/files.sh
# needs: lib/key_pair.sh
# params: folder keys? pair inside? record?
# write_core_files.sh [STAGED DEST BASE_SHA RESULT_SHA]…: writes the staged files, and makes the folder for Core's keys
# (root only) where there is none; without `keys` compose makes it, as a named volume. `record`: the file in which
# standard input is stored first of all, because a rollback needs it. `pair` = yes: the staged key pair is written
# first; an existing one stays. `inside`: Core's container, which is stopped and has its key pair inside: the pair is
# copied into the run folder and into `keys`.
if [ -n "$record" ]; then
  cat >"$record.part"
  fsync_file "$record.part"
  mv -f "$record.part" "$record"
fi
if [ -n "$keys" ] && [ ! -d "$keys" ]; then
  as_owner "$keys" make_folder "$keys"
  say made "$keys"
fi
if [ -n "$inside" ]; then move_pair_out "$inside" core "$folder/keys-inside" "$keys"; fi
if [ "$pair" = yes ]; then
  if [ -e "$folder/staged/core.key" ]; then
    place_pair "$folder/staged" core "$keys" "the staged key"
  else
    [ -e "$keys/core.key" ] || die 72 "$keys/core.key, whose public part was planned with, is gone"
  fi
fi
while [ $# -ge 4 ]; do
  replace_file "$folder/staged/$1" "$2" "$3" "$4"
  say written "$2"
  shift 4
done
