# shellcheck shell=sh
# The host's time, in seconds since 1970.
date -u +%s.%N
