# shellcheck shell=sh
# needs: lib/km.sh
# Ends a km whose script was killed: it may still write, so that dropped data would come back.
km_end
