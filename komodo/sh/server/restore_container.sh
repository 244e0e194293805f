#!/bin/sh
# Restores the Komodo agent of this machine, a container of a Compose project, to its state before the upgrade, and
# proves by its log that it runs. Needs no tool and no network but docker. As root:
#
#     sh restore.sh --dry-run     show what would be done
#     sh restore.sh               do it
#
# Safe to run again at any time, also when nothing was changed. restore.list next to this script says what belongs
# where; nothing else on the machine is touched. Exit code 0: the old version runs.
set -eu
umask 077
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
list=$here/restore.list
dry=
case ${1:-} in
  '') ;;
  --dry-run) dry=1 ;;
  *)
    echo "usage: sh restore.sh [--dry-run]" >&2
    exit 2
    ;;
esac

fail() {
  echo "restore.sh: $*" >&2
  exit 1
}
# library begin
# needs: lib/prelude.sh
# needs: lib/files.sh
# library end
ku_carried=$(sed -n '/^# library begin$/,/^# library end$/p' "$0")
die() { fail "$2"; }
require_root_only "$here"
values() { sed -n "s/^$1$tab//p" "$list"; }
value() { values "$1" | head -n 1; }
[ "$(value format)" = 1 ] || fail "restore.list has format $(value format), this script knows 1"
container=$(value container)
service=$(value service)
directory=$(value directory)
version=$(value version)
reference=$(value image)
identity=$(value image_id)
[ -n "$container" ] && [ -n "$identity" ] || fail "restore.list names no container"
files() { grep "^file$tab" "$list" || :; }

# The automatic rollback timer must not do the same at the same time. If it has begun, it is waited for.
if [ -z "$dry${RESTORE_BY_TIMER:-}" ] && [ -f "$here/dead-man.sh" ]; then
  sh "$here/dead-man.sh" disarm >/dev/null || fail "the automatic rollback timer could not be disarmed"
fi

set --
while IFS="$tab" read -r _ _ _ _ _ _ path; do set -- "$@" ${path:+"$path"}; done <<END
$(files)
END
look_up "$@"

# 1. Is every saved file still what was saved, and the old image still here? Else nothing is touched.
files | while IFS="$tab" read -r _ kind digest _ _ name path; do
  [ "$(sha256_of "$here/files/$name")" = "$digest" ] ||
    fail "$here/files/$name is not the $kind that was saved from $path; nothing was touched"
done
docker image inspect "$identity" >/dev/null 2>&1 ||
  fail "the old image $identity ($reference) is not on this host any more: docker pull it first; nothing was touched"

# 2. What differs?
changed=$(files | while IFS="$tab" read -r _ kind digest _ _ _ path; do
  file_digest "$path"
  if [ "$sha256" != "$digest" ]; then printf '%s ' "$kind"; fi
done)
# old_runs: succeeds if the container runs the old image
old_runs() {
  shown=$(docker inspect -f '{{.State.Running}} {{.State.Restarting}} {{.Image}}' "$container" 2>/dev/null) || return 1
  [ "$shown" = "true false $identity" ]
}
log() {
  docker logs "$container" 2>&1 | tr -d '\033' | sed 's/\[[0-9;]*m//g' | awk '
    /Komodo Periphery version: / { text = "" }
    { text = text $0 "\n" }
    END { printf "%s", text }'
}
says_version() {
  if [ -n "$version" ]; then log | grep -F "Komodo Periphery version: v$version" | tail -n 1; fi
}

# compose WORD…: docker compose -p PROJECT -f FILE… [--env-file FILE] [--project-directory DIR] WORD…, as it was found.
compose() {
  project_directory=$(value project_directory)
  if [ -n "$project_directory" ]; then set -- --project-directory "$project_directory" "$@"; fi
  env_file=$(value env_file)
  if [ -n "$env_file" ]; then set -- --env-file "$env_file" "$@"; fi
  # The last file first, because each is put in front.
  reversed=
  while IFS= read -r file; do
    reversed="$file
$reversed"
  done <<END
$(values compose_file)
END
  while IFS= read -r file; do
    [ -z "$file" ] || set -- -f "$file" "$@"
  done <<END
$reversed
END
  set -- -p "$(value project)" "$@"
  case $(value compose) in
    docker-compose) set -- docker-compose "$@" ;;
    *) set -- docker compose "$@" ;;
  esac
  if [ -n "$dry" ]; then
    echo "would run: cd $directory && $*"
    return 0
  fi
  (cd "$directory" && "$@")
}

# old_name: gives the old image the name that the old compose file uses, where another image has it now, or none.
old_name() {
  case $reference in *@*) return 0 ;; esac
  now=$(docker image inspect -f '{{.Id}}' "$reference" 2>/dev/null) || now=
  [ "$now" != "$identity" ] || return 0
  if [ -n "$dry" ]; then
    echo "would give the name $reference back to the image $identity"
  else
    echo "giving the name $reference back to the image $identity"
    docker tag "$identity" "$reference"
  fi
}

# note_restored: recorded here, and in the folders of later upgrades, which were based on the version that was replaced.
note_restored() {
  later=
  for folder in "$(dirname -- "$here")"/*/; do
    folder=${folder%/}
    if [ "${folder##*/}" = "${here##*/}" ]; then later=1; fi
    if [ -n "$later" ] && [ -f "$folder/restore.list" ]; then date -u +%Y-%m-%dT%H:%M:%SZ >"$folder/restored-at"; fi
  done
}

if [ -z "$changed" ] && old_runs; then
  echo "nothing to restore: $container runs its old image"
  [ -n "$dry" ] || note_restored
  exit 0
else
  files | while IFS="$tab" read -r _ kind digest _ _ name path; do
    file_digest "$path"
    if [ "$sha256" = "$digest" ]; then
      [ -z "$dry" ] || echo "would leave $path: it is as it was"
    elif [ -n "$dry" ]; then
      echo "would restore $kind $path from $here/files/$name"
    else
      echo "restoring $kind $path"
      # shellcheck disable=SC2094 # a model, which is only read
      as_owner "$path" restore_content "$path" "$digest" "$here/files/$name" <"$here/files/$name"
    fi
  done
  old_name
  compose up -d --no-deps "$service"
  if [ -n "$dry" ]; then exit 0; fi
  # Compose takes a container for current whose image was only renamed.
  old_runs || compose up -d --no-deps --force-recreate "$service"
fi

# 3. The proof: its own log, read twice during the same run. A crash loop also runs at times.
# Not by the clock, which may be set meanwhile.
ticks() { cut -d. -f1 /proc/uptime 2>/dev/null || date +%s; }
wait=$(value wait)
before=
ends=$(($(ticks) + wait))
while :; do
  line=$(says_version)
  started=
  if old_runs && { [ -z "$version" ] || [ -n "$line" ]; }; then
    started=$(docker inspect -f '{{.State.StartedAt}}' "$container" 2>/dev/null) || started=
  fi
  if [ -n "$started" ] && [ "$started" = "$before" ]; then
    note_restored
    echo "proven: ${line:-$container runs its old image}"
    exit 0
  fi
  before=$started
  [ "$(ticks)" -lt "$ends" ] || break
  sleep 0.5 2>/dev/null || sleep 1
done
echo "restore.sh: the files are restored, but within $wait s the log of $container did not report that v$version runs" >&2
echo "  see: docker logs --tail 50 $container" >&2
exit 3
