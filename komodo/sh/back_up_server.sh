# shellcheck shell=sh
# back_up_server.sh FOLDER STAMP: fills the run's folder. Standard input has two kinds of records, one a line:
#   save<TAB>SHA256<TAB>NAME<TAB>GUIDE<TAB>PATH   keep PATH as FOLDER/files/NAME, and as PATH.GUIDE beside it ("-": not)
#   text<TAB>MODE<TAB>SIZE<TAB>NAME               the next SIZE bytes become FOLDER/NAME
# Nothing that exists is overwritten by something different, except our own texts. All is collected and flushed first, then
# put in place; the last text is the mark that all is there.
folder=$1
export KU_STAMP="$2"
incoming=$folder/.incoming
umask 077
mkdir -p "$folder/files" "$incoming/files" "$incoming/texts"

guides=
wanted=
sizes=
programs=
texts=
mark=
set --
while IFS="$tab" read -r record first second third path; do
  case $record in
    save)
      kept=$folder/files/$second
      digest "$kept"
      if [ "$sha256" != "$first" ]; then
        [ -f "$path" ] || die 72 "$path is not any more what was planned"
        cp -p -- "$path" "$incoming/files/$second"
        set -- "$@" "$incoming/files/$second"
        wanted="$wanted$first$tab$path$ku_line_break"
      fi
      [ "$third" = - ] || guides="$guides$first$tab$second$tab$path.$third$ku_line_break"
      say saved "$second$tab$first$tab$path"
      ;;
    text)
      # Exactly these bytes at once: a shell would read them one by one.
      said=$(dd bs="$second" count=1 iflag=fullblock 2>&1 >"$incoming/texts/$third") || die 1 "$said"
      [ "$first" = 0600 ] || programs="$programs $third"
      sizes="$sizes$second$ku_line_break"
      texts="$texts $third"
      mark=$third
      ;;
    *) die 74 "unknown record $record" ;;
  esac
done

if [ $# -gt 0 ]; then
  digests "$@"
  while IFS="$tab" read -r first path; do
    [ -n "$first" ] || continue
    next_sum
    [ "$sha256" = "$first" ] || die 72 "$path is not any more what was planned"
  done <<END
$wanted
END
  fsync_file "$@"
  mv -f -- "$@" "$folder/files/"
fi
while IFS="$tab" read -r first name path; do
  [ -n "$first" ] || continue
  copy_of "$folder/files/$name" "$path" "$first"
  say guide "$name$tab$ku_copy"
done <<END
$guides
END
cd "$incoming/texts"
# shellcheck disable=SC2086
[ -z "$programs" ] || chmod 0700 $programs
# shellcheck disable=SC2086 # one word per text
set -- $texts
[ "$(stat -c %s "$@")$ku_line_break" = "$sizes" ] || die 74 "the input ended inside $mark, or before it"
fsync_file "$@"
for name; do
  [ "$name" = "$mark" ] || set -- "$@" "$name"
  shift
done
mv -f -- "$@" "$folder/"
mv -f -- "$mark" "$folder/$mark"
fsync_file "$folder"
cd "$folder"
rmdir "$incoming/texts" "$incoming/files" "$incoming"
