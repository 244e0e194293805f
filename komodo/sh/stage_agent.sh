# shellcheck shell=sh
# needs: beside.sh
# stage_agent.sh FILE SHA256 URL [BINARY OLD_SHA]: FILE is v2's binary at the end, proven to be the planned one and to run
# here, and lies beside BINARY too. SHA256 "": any. URL "": FILE was pushed by the worker already. Exit codes of its own:
#   76 it could not be downloaded   77 it is not the binary that was expected   78 it does not run here
file=$1
expected=$2
url=$3
binary=${4:-}
old=${5:-}
umask 077
mkdir -p "${file%/*}"
new=$file.part

if [ -n "$url" ] && { [ ! -f "$file" ] || { [ -n "$expected" ] && [ "$(sha256_of "$file")" != "$expected" ]; }; }; then
  [ ! -e "$new" ] || rm -f -- "$new"
  if command -v curl >/dev/null 2>&1; then
    # A line that is open and brings nothing for a minute is no download.
    curl -fsSL --connect-timeout 15 --retry 2 --speed-limit 1 --speed-time 60 -o "$new" "$url" || {
      code=$?
      rm -f -- "$new"
      if [ "$code" = 23 ]; then
        # Full, or not to be written to at all? The shell says it better than curl does.
        : >"$new"
        rm -f -- "$new"
        die 70 "no space left for $new"
      fi
      die 76 "curl could not download $url (exit code $code)"
    }
  elif command -v wget >/dev/null 2>&1; then
    wget -q -T 15 -t 3 -O "$new" "$url" || {
      rm -f -- "$new"
      die 76 "wget could not download $url"
    }
  else
    die 76 "neither curl nor wget is installed"
  fi
  fsync_file "$new"
  mv -f -- "$new" "$file"
fi
[ -f "$file" ] || die 74 "$file is missing"

# Looked at before it is run: a shell would execute a saved HTML page line by line.
bytes=$(stat -L -c %s "$file")
# One word for each byte.
# shellcheck disable=SC2046
set -- $(od -An -tx1 -N 20 "$file")
IFS=
head=$*
unset IFS
digest "$file"
now=$sha256
case $head in
  7f454c46*) ;;
  2321*) ;;
  *)
    first=$(head -c 60 "$file" | tr -cd ' -~')
    rm -f -- "$file"
    die 77 "what was downloaded is no program: $bytes bytes, beginning with: $first"
    ;;
esac
if [ -n "$expected" ] && [ "$now" != "$expected" ]; then
  rm -f -- "$file"
  die 77 "its sha256 is $now, expected $expected"
fi
[ -x "$file" ] || chmod 0755 "$file"
in_one_line "$("$file" --version 2>&1 </dev/null | head -n 5)"
said="$line "
case $said in
  "periphery "*) ;;
  *) die 78 "$(printf '%s' "$said" | tr -cd ' -~' | cut -c 1-300)" ;;
esac
# A binary that is not the planned one any more is somebody else's to see: the next look at this host reports it.
if [ -n "$binary" ] && [ -f "$binary" ]; then
  lay_beside "$file" "$binary" "$now"
  seal "$file" "$binary" "$old" "$now"
fi
say bytes "$bytes"
say head "$head"
say sha256 "$now"
say version "$said"
