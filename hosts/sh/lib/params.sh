# shellcheck shell=sh
# Takes the script's parameters, pairs NAME VALUE up to the word --, off "$@" and sets them as variables. In front of
# every script that declares some; ku_required and ku_optional hold the declared names. A value is never part of any
# code.
ku_given=
while [ "${1:---}" != -- ]; do
  case $1 in ku_* | *[!a-z0-9_]* | [!a-z]*) die 74 "not a name of a parameter: $1" ;; esac
  case " $ku_required $ku_optional " in *" $1 "*) ;; *) die 74 "the script takes no parameter $1" ;; esac
  [ $# -ge 2 ] || die 74 "the parameter $1 has no value"
  eval "$1=\$2"
  ku_given="$ku_given $1 "
  shift 2
done
[ $# -eq 0 ] || shift
for ku_name in $ku_required; do
  case $ku_given in *" $ku_name "*) ;; *) die 74 "the parameter $ku_name is missing" ;; esac
done
