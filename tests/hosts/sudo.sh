#!/bin/sh
# A stand-in for sudo. ~/sudo.mode: nopasswd | password | forgets (timestamp_timeout=0) | tty | stranger.
# ~/sudo.password is the right one. Tickets are bound to the parent process, as sudo's are without a terminal.
mode=$(cat "$HOME/sudo.mode")
ask=yes verify='' stdin='' forget=''
while [ $# -gt 0 ]; do
    case $1 in
    -n) ask='' ;;
    -S) stdin=yes ;;
    -v) verify=yes ;;
    -k) forget=yes ;;
    -p) shift ;;
    *) break ;;
    esac
    shift
done
case $mode in
tty) echo 'sudo: sorry, you must have a tty to run sudo' >&2 && exit 1 ;;
stranger) echo 'ops is not in the sudoers file.' >&2 && exit 1 ;;
esac
ticket=$HOME/ticket.$PPID
[ -z "$forget" ] || rm -f "$ticket"
if [ "$mode" != nopasswd ] && [ ! -e "$ticket" ]; then
    [ -n "$ask" ] || { echo 'sudo: a password is required' >&2 && exit 1; }
    [ -n "$stdin" ] || { echo 'sudo: a terminal is required to read the password' >&2 && exit 1; }
    IFS= read -r password || { echo 'sudo: no password was provided' >&2 && exit 1; }
    echo attempt >>"$HOME/sudo.attempts"
    if [ "$password" != "$(cat "$HOME/sudo.password")" ]; then
        printf 'Sorry, try again.\nsudo: no password was provided\nsudo: 1 incorrect password attempt\n' >&2
        exit 1
    fi
    [ "$mode" = forgets ] || : >"$ticket"
fi
[ -z "$verify" ] || exit 0
unset password
AS_ROOT=yes exec "$@"
