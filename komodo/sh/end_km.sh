# shellcheck shell=sh
# needs: km.sh
# A km whose script was killed may still write, and what is dropped under it would come again.
km_end
