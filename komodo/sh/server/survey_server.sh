# shellcheck shell=sh
# needs: lib/files.sh
# needs: lib/user_unit.sh
# params: unit unit_only? scope?
# What the agent's unit says and, without `unit_only`, what this machine is. Reads only. Of the settings in files and
# in the environment of the running process, only harmless ones are printed with their values.
use_manager "$scope"
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
if [ -z "$unit_only" ]; then machine; fi

# settings SOURCE: prints setting<TAB>SOURCE<TAB>NAME<TAB>VALUE for each assignment on standard input
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

# settings_in FILE: those of an environment file, if there is one
settings_in() {
  [ -f "$1" ] && [ -r "$1" ] || return 0
  require_readable "$1"
  read_as_owner "$1" | settings "$1"
}

# agent_pid PID: prints which of PID and its children is the agent; the official unit starts it through a shell
agent_pid() {
  for candidate in "$1" $(ps -eo pid=,ppid= 2>/dev/null | awk -v parent="$1" '$2 == parent { print $1 }'); do
    case $(readlink "/proc/$candidate/exe" 2>/dev/null || :) in
      *periphery*)
        printf '%s\n' "$candidate"
        return
        ;;
    esac
  done
}

# other_agents: agents of other kinds. For each container of one of Komodo's images:
# container<TAB>ID RUNNING RESTARTING RESTART_POLICY IMAGE /NAME COMPOSE_PROJECT
other_agents() {
  if command -v docker >/dev/null 2>&1; then
    # A Docker daemon that hangs must not end the survey of an agent that does not need it.
    ids=$(timeout 20 docker ps -a --no-trunc --format '{{.ID}}' 2>/dev/null || :)
    if [ -n "$ids" ]; then
      # shellcheck disable=SC2086 # one word per container
      timeout 20 docker inspect -f '{{.Id}} {{.State.Running}} {{.State.Restarting}} {{.HostConfig.RestartPolicy.Name}} {{.Config.Image}} {{.Name}} {{with index .Config.Labels "com.docker.compose.project"}}{{.}}{{end}}' \
        $ids 2>/dev/null | grep -E 'komodo|periphery' | sed "s/^/container$tab/" || :
    fi
  fi
  for file in /root/.config/systemd/user/"$unit" /home/*/.config/systemd/user/"$unit"; do
    if [ -f "$file" ]; then say user_unit "$(stat -c %U "$file")$tab$file"; fi
  done
}
if [ -z "$unit_only" ]; then other_agents; fi

command -v systemctl >/dev/null 2>&1 || exit 0
if [ "$scope" = user ]; then
  user=$(id -un)
  say user "$user"
  say home "$HOME"
  # Without it the user's units end with his last session.
  if [ -e "/var/lib/systemd/linger/$user" ]; then say linger yes; else say linger no; fi
fi
properties=Id,LoadState,ActiveState,SubState,UnitFileState,FragmentPath,DropInPaths,ExecStart,Environment
properties=$properties,EnvironmentFiles,MainPID,InvocationID,NRestarts,User,Group,WorkingDirectory
shown=$(systemctl show --no-pager -p "$properties" "$unit" 2>/dev/null) || :
say show "$shown"

value_of FragmentPath "$shown"
fragment=$value
value_of LoadState "$shown"
if [ "$value" = not-found ] || [ -z "$fragment" ]; then exit 0; fi

# Each environment file has a line of its own.
while IFS='=' read -r name file; do
  file=${file% (ignore_errors=*)}
  if [ "$name" = EnvironmentFiles ]; then settings_in "$file"; fi
done <<END
$shown
END
value_of WorkingDirectory "$shown"
folder=${value#-}
folder=${folder#!}
settings_in "$folder/.env"

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
