# shellcheck shell=sh
# has.sh PATH: digest and mode of a file, empty when there is none.
if [ -f "$1" ]; then
    say sha256 "$(sha256_of "$1")"
    say mode "$(stat -L -c %a "$1")"
fi
