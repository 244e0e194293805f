# shellcheck shell=sh
# The first code on a host that needs sudo. Standard input continues with: marker, way (passwordless | password),
# password, and then what the next shell reads. The password is in one variable and goes to sudo through a pipe from a
# builtin, so it is in no argument list, no environment and no file.
LC_ALL=C
export LC_ALL
IFS= read -r ku_marker || exit 74
IFS= read -r ku_way || exit 74
IFS= read -r ku_password || exit 74
printf '\n%s become\n' "$ku_marker" >&2

# The next shell reads the size of its code and the code. It ends at a line without the marker: if sudo did not read the
# password, the password goes no further.
# shellcheck disable=SC2016
ku_next='IFS= read -r n || exit 74
case $n in "$1 "*) n=${n#"$1 "} ;; *) exit 74 ;; esac
ku_code=$(dd bs="$n" count=1 iflag=fullblock 2>/dev/null)
case $ku_code in *"#end") shift && eval "$ku_code" ;; *) exit 74 ;; esac'

if ! command -v sudo >/dev/null 2>&1; then
  if [ "$(id -u)" = 0 ]; then
    exec sh -c "$ku_next" sh "$ku_marker"
  fi
  printf 'sudo: not found\n' >&2
  exit 1
fi
if [ "$ku_way" = passwordless ]; then
  exec sudo -n sh -c "$ku_next" sh "$ku_marker"
fi

printf '%s\n' "$ku_password" | sudo -S -p '' -v || exit 1
# Not exec: without a terminal, sudo remembers a verified password for the parent process.
sudo -n sh -c "$ku_next" sh "$ku_marker"
ku_rc=$?
[ "$ku_rc" = 1 ] || exit "$ku_rc"
# sudo itself refused (what it runs never ends with 1): this host does not remember passwords (timestamp_timeout=0).
# Nothing of our input was read, so the password goes first, and sudo reads exactly that line.
{
  printf '%s\n' "$ku_password"
  cat
} | sudo -k -S -p '' sh -c "$ku_next" sh "$ku_marker"
