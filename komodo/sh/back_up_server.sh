# shellcheck shell=sh
# back_up_server.sh FOLDER STAMP: fills the run's folder. Standard input has two kinds of records, one a line:
#   save<TAB>SHA256<TAB>NAME<TAB>GUIDE<TAB>PATH   keep PATH as FOLDER/files/NAME, and as PATH.GUIDE beside it ("-": not)
#   text<TAB>MODE<TAB>SIZE<TAB>NAME               the next SIZE bytes become FOLDER/NAME
# Nothing that exists is overwritten by something different, except our own texts. The last text is the mark that all is there.
folder=$1
export KU_STAMP="$2"
tab=$(printf '\t')
umask 077
mkdir -p "$folder/files"

# at SHA256 FILE: is FILE there with that content
at() { [ -f "$2" ] && [ "$(sha256_of "$2")" = "$1" ]; }

while IFS="$tab" read -r record first second third path; do
  case $record in
    save)
      name=$second
      if ! at "$first" "$folder/files/$name"; then
        at "$first" "$path" || die 72 "$path is not any more what was planned"
        cp -p -- "$path" "$folder/files/.$name.new"
        at "$first" "$folder/files/.$name.new" || die 72 "$path changed while it was copied"
        fsync_file "$folder/files/.$name.new"
        mv -f -- "$folder/files/.$name.new" "$folder/files/$name"
      fi
      if [ "$third" != - ]; then
        kept=$(keep_copy "$folder/files/$name" "$path.$third")
        say guide "$name$tab$kept"
      fi
      say saved "$name$tab$first$tab$path"
      ;;
    text)
      name=$third
      # Exactly these bytes at once: a shell would read them one by one.
      dd bs="$second" count=1 iflag=fullblock 2>/dev/null >"$folder/.$name.new"
      [ "$(wc -c <"$folder/.$name.new")" -eq "$second" ] || die 74 "the input ended inside $name"
      chmod "$first" "$folder/.$name.new"
      fsync_file "$folder/.$name.new"
      mv -f -- "$folder/.$name.new" "$folder/$name"
      ;;
    *) die 74 "unknown record $record" ;;
  esac
done
