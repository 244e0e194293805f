# shellcheck shell=sh
# When this step was first begun. A repeated step gets the same answer.
say at "$(date -u +%s)"
