# shellcheck shell=sh
# needs: lib/files.sh
# needs: lib/user_unit.sh
# needs: lib/switching.sh
# params: mark unit version? config? base? result? key_file? core_key? scope?
# Stops the unit and records that; no file is written. Safe to run again.
use_manager "$scope"
remember
stopping
systemctl stop "$unit"
say stopped yes
