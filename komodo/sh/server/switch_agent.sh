# shellcheck shell=sh
# needs: lib/files.sh
# needs: lib/user_unit.sh
# needs: lib/arming.sh
# needs: lib/switching.sh
# needs: lib/staged_binary.sh
# params: mark unit binary old staged new version wait config? base? result? key_file? core_key? auto_rollback? scope?
# Writes the config, then stops the unit, renames the staged binary (sha256 `new`) over the installed one (`old`),
# starts the unit and waits up to `wait` seconds for the journal of its new run. The config's new text (sha256
# `result`, before: `base`) comes on standard input. `auto_rollback`: after so many seconds the host restores itself,
# 0: never. Each part first checks whether it is done already: the script may be killed at any instruction and run
# again.
use_manager "$scope"
arm "${auto_rollback:-0}"
name_staged "$binary"
trap '[ ! -e "$second" ] || as_owner "$second" remove_file "$second"' EXIT
look_up "$binary" ${config:+"$config"}

# 1. All checks and copies are made while the old agent still runs; most of them were made by stage_agent.sh.
switched=
if ! sealed "$staged" "$binary" "$old" "$new"; then
  file_digest "$binary"
  if [ "$sha256" = "$new" ]; then
    switched=yes
  else
    [ "$sha256" = "$old" ] || die 72 "$binary is not what was planned"
    digest "$staged"
    [ "$sha256" = "$new" ] || die 72 "$staged is not what was staged"
    place_staged "$staged" "$binary" "$new"
  fi
fi
remember
if [ -n "$key_file" ]; then write_key; fi
if [ -n "$config" ]; then write_config; fi

# 2. The switch.
if [ -z "$switched" ]; then
  stopping
  systemctl stop "$unit"
  as_owner "$binary" rename_file "$second" "$binary"
  new_run stopped
else
  new_run
fi
await_run "$wait"
