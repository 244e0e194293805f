# shellcheck shell=sh
# mark.sh: when this step was first begun. A repeated step finds the same answer.
say at "$(date -u +%s)"
