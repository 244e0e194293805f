# shellcheck shell=sh
# needs: lib/files.sh
# needs: lib/staged_binary.sh
# params: file expected url? binary? old?
# Afterwards `file` is the agent's binary for v2, proven to be the planned one and to run on this host. A second name
# of it is placed next to `binary`, the installed one with the sha256 `old`. `expected`: its sha256. `url`: where it is
# downloaded from, empty: the worker has sent it already. Exit codes of its own:
#   76 the download failed   77 it is not the expected binary   78 it does not run here
mkdir -p "${file%/*}"
new=$file.part

if [ -n "$url" ] && { [ ! -f "$file" ] || [ "$(sha256_of "$file")" != "$expected" ]; }; then
  [ ! -e "$new" ] || rm -f -- "$new"
  if command -v curl >/dev/null 2>&1; then
    # A connection that transfers nothing for a minute has failed. Redirects do not leave https.
    case $url in https:*) redirects='=https' ;; *) redirects='=http,https' ;; esac
    curl -fsSL --proto-redir "$redirects" --max-filesize 536870912 --connect-timeout 15 --retry 2 --speed-limit 1 \
      --speed-time 60 -o "$new" "$url" || {
      code=$?
      rm -f -- "$new"
      if [ "$code" = 23 ]; then
        # Is the disk full, or the folder not writable? The error of the shell says it better than that of curl.
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

# Checked before it is run: a shell would execute a saved HTML page line by line.
look_up "$file" ${binary:+"$binary"}
facts_of "$file"
bytes=$ku_f_size
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
    die 77 "the downloaded file is not a program: it has $bytes bytes and begins with: $first"
    ;;
esac
if [ "$now" != "$expected" ]; then
  rm -f -- "$file"
  die 77 "its sha256 is $now, expected $expected"
fi
[ -x "$file" ] || chmod 0755 "$file"
in_one_line "$("$file" --version 2>&1 </dev/null | head -n 5)"
output="$line "
case $output in
  "periphery "*) ;;
  *) die 78 "$(printf '%s' "$output" | tr -cd ' -~' | cut -c 1-300)" ;;
esac
# An installed binary that is no longer the planned one is reported by the next check of this host.
if [ -n "$binary" ] && [ -f "$binary" ]; then
  place_staged "$file" "$binary" "$now"
  seal "$file" "$binary" "$old" "$now"
fi
say bytes "$bytes"
say head "$head"
say sha256 "$now"
say version "$output"
