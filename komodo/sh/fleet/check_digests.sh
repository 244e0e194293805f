# shellcheck shell=sh
# check_digests.sh [FILE SHA256]…: reports which of these files are missing or different (SHA256 empty: any). Reads
# only.
while [ $# -ge 2 ]; do
  now=$(sha256_of "$1")
  if [ -z "$now" ]; then
    say missing "$1"
  elif [ -n "$2" ] && [ "$now" != "$2" ]; then
    say differs "$1"
  fi
  shift 2
done
