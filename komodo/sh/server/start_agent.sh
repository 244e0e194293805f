# shellcheck shell=sh
# needs: lib/files.sh
# needs: lib/user_unit.sh
# needs: lib/switching.sh
# params: mark unit version wait config base result key_file? core_key? scope?
# After stop_agent.sh with the same mark: standard input becomes the config, then the unit is started, and the journal of
# its new run is waited for. Safe to run again.
use_manager "$scope"
look_up "$config"
remember
write_config
new_run
await_run "$wait"
