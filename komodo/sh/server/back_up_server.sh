# shellcheck shell=sh
# needs: lib/files.sh
# params: folder stamp
# Fills the run folder. Standard input has two kinds of records, one a line:
#   save<TAB>SHA256<TAB>NAME<TAB>SUFFIX<TAB>PATH   copy PATH to FOLDER/files/NAME, and to PATH.SUFFIX ("-": no second copy)
#   text<TAB>MODE<TAB>SIZE<TAB>NAME                the next SIZE bytes become FOLDER/NAME
# A file with other content is never overwritten, except our own texts. Everything is collected and flushed first, then
# put in place; the last text is the mark of a complete backup.
export KU_STAMP="$stamp"
incoming=$folder/.incoming
mkdir -p "$folder/files" "$incoming/files" "$incoming/texts"

guides=
wanted=
sizes=
programs=
texts=
last=
set --
while IFS="$tab" read -r record first second third path; do
  case $record in
    save)
      kept=$folder/files/$second
      digest "$kept"
      if [ "$sha256" != "$first" ]; then
        [ -f "$path" ] || die 72 "$path is not what was planned"
        fetch_file "$path" "$incoming/files/$second"
        set -- "$@" "$incoming/files/$second"
        wanted="$wanted$first$tab$path$ku_line_break"
      fi
      [ "$third" = - ] || guides="$guides$first$tab$second$tab$third$tab$path$ku_line_break"
      say saved "$second$tab$first$tab$path"
      ;;
    text)
      # Exactly these bytes at once: a shell would read them one by one.
      output=$(dd bs="$second" count=1 iflag=fullblock 2>&1 >"$incoming/texts/$third") || die 1 "$output"
      [ "$first" = 0600 ] || programs="$programs $third"
      sizes="$sizes$second$ku_line_break"
      texts="$texts $third"
      last=$third
      ;;
    *) die 74 "unknown record $record" ;;
  esac
done

if [ $# -gt 0 ]; then
  digests "$@"
  while IFS="$tab" read -r first path; do
    [ -n "$first" ] || continue
    next_sum
    [ "$sha256" = "$first" ] || die 72 "$path is not what was planned"
  done <<END
$wanted
END
  fsync_file "$@"
  mv -f -- "$@" "$folder/files/"
fi
while IFS="$tab" read -r first name suffix path; do
  [ -n "$first" ] || continue
  as_owner "$path" copy_of "$path" "$path.$suffix" "$first"
  say guide "$name$tab$ku_result"
done <<END
$guides
END
cd "$incoming/texts"
# shellcheck disable=SC2086
[ -z "$programs" ] || chmod 0700 $programs
# shellcheck disable=SC2086 # one word per text
set -- $texts
[ "$(stat -c %s "$@")$ku_line_break" = "$sizes" ] || die 74 "the input ended inside $last, or before it"
fsync_file "$@"
for name; do
  [ "$name" = "$last" ] || set -- "$@" "$name"
  shift
done
mv -f -- "$@" "$folder/"
mv -f -- "$last" "$folder/$last"
fsync_file "$folder"
cd "$folder"
rmdir "$incoming/texts" "$incoming/files" "$incoming"
