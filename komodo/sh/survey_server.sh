# shellcheck shell=sh
# survey_server.sh UNIT [unit]: what this machine is (not with `unit`) and what its agent's unit says. Changes nothing.
# Of settings in files and of the running process, only harmless ones are reported with their values.
unit=$1

machine() {
  say machine "$(uname -m)"
  os=
  while IFS='=' read -r name text; do
    if [ "$name" = PRETTY_NAME ]; then os=${text#\"} && os=${os%\"}; fi
  done 2>/dev/null </etc/os-release || :
  say os "$os"
  glibc=$(getconf GNU_LIBC_VERSION 2>/dev/null) || :
  say glibc "${glibc#glibc }"
  say now "$(date -u +%s)"
  say uid "$(id -u)"
  libssl=no
  for file in /lib/libssl.so.3 /lib64/libssl.so.3 /usr/lib/libssl.so.3 /usr/lib64/libssl.so.3 /lib/*/libssl.so.3 \
    /usr/lib/*/libssl.so.3 /usr/local/lib*/libssl.so.3; do
    if [ -e "$file" ]; then libssl=yes; fi
  done
  say openssl3 "$libssl"
  for tool in systemctl journalctl sha256sum curl wget python3; do
    if command -v "$tool" >/dev/null 2>&1; then say tool "$tool"; fi
  done
}
if [ -z "${2:-}" ]; then machine; fi

# settings SOURCE: lines setting<TAB>SOURCE<TAB>NAME<TAB>VALUE from assignments on standard input
settings() {
  awk -v source="$1" -v tab="$tab" '
    BEGIN {
      shown = "^PERIPHERY_(CONFIG_PATHS?|CONFIG_KEYWORDS?|CORE_PUBLIC_KEYS?|CORE_ADDRESS(ES)?|SERVER_ENABLED|PORT" \
        "|SSL_ENABLED|LOGGING_LEVEL|LOGGING_STDIO|ROOT_DIRECTORY|ALLOWED_IPS|PASSKEYS_FILE)$"
    }
    {
      sub(/^[ \t]*(export[ \t]+)?/, "")
      at = index($0, "=")
      if (at < 2) next
      name = toupper(substr($0, 1, at - 1)); value = substr($0, at + 1)
      gsub(/[ \t\r]+$/, "", name); gsub(/^[ \t]+|[ \t\r]+$/, "", value)
      if (name !~ /^PERIPHERY_[A-Z0-9_]+$/) next
      if (value ~ /^".*"$/ || value ~ /^\047.*\047$/) value = substr(value, 2, length(value) - 2)
      if (name !~ shown) value = (value == "" ? "" : "(set)")
      print "setting" tab source tab name tab value
    }'
}

# agent_pid PID: the agent among PID and its children; the official unit starts it through a shell
agent_pid() {
  for candidate in "$1" $(ps -eo pid=,ppid= 2>/dev/null | awk -v parent="$1" '$2 == parent { print $1 }'); do
    case $(readlink "/proc/$candidate/exe" 2>/dev/null || :) in
      *periphery*) printf '%s\n' "$candidate"; return ;;
    esac
  done
}

# elsewhere: what else an agent could be, where there is no such unit
elsewhere() {
  if command -v docker >/dev/null 2>&1; then
    ids=$(docker ps -a --no-trunc --format '{{.ID}}' 2>/dev/null || :)
    if [ -n "$ids" ]; then
      # shellcheck disable=SC2086 # one word per container
      docker inspect $ids 2>/dev/null | sed -n 's/.*"Image": "\([^"]*periphery[^"]*\)".*/\1/p' | sort -u |
        sed "s/^/container$tab/" || :
    fi
  fi
  for file in /root/.config/systemd/user/periphery.service /home/*/.config/systemd/user/periphery.service; do
    if [ -f "$file" ]; then say user_unit "$file"; fi
  done
}

if ! command -v systemctl >/dev/null 2>&1; then
  elsewhere
  exit 0
fi
properties=Id,LoadState,ActiveState,SubState,UnitFileState,FragmentPath,DropInPaths,ExecStart,Environment
properties=$properties,EnvironmentFiles,MainPID,InvocationID,NRestarts,User,Group,WorkingDirectory
shown=$(systemctl show --no-pager -p "$properties" "$unit" 2>/dev/null) || :
say show "$shown"

value_of FragmentPath "$shown"
fragment=$value
value_of LoadState "$shown"
if [ "$value" = not-found ] || [ -z "$fragment" ]; then
  elsewhere
  exit 0
fi

# One line for each file.
while IFS='=' read -r name file; do
  file=${file% (ignore_errors=*)}
  # shellcheck disable=SC2094 # the name is only printed
  if [ "$name" = EnvironmentFiles ] && [ -n "$file" ] && [ -r "$file" ]; then settings "$file" <"$file"; fi
done <<END
$shown
END
value_of WorkingDirectory "$shown"
folder=${value#-}
folder=${folder#!}
# shellcheck disable=SC2094
if [ -r "$folder/.env" ]; then settings "$folder/.env" <"$folder/.env"; fi

value_of MainPID "$shown"
main=$value
case $main in
  '' | 0 | *[!0-9]*) ;;
  *)
    pid=$(agent_pid "$main")
    if [ -n "$pid" ]; then
      say running_exe "$(readlink "/proc/$pid/exe" | sed 's/ (deleted)$//')"
      tr '\000' '\n' <"/proc/$pid/environ" 2>/dev/null | settings process || :
    fi
    ;;
esac
