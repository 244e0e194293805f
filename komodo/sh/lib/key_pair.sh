# shellcheck shell=sh
# Key pairs of v2 that lie inside of containers: in /config/keys, where no mount is. Re-creating the container makes
# another pair. NAME is core or periphery. Needs: docker, the prelude, lib/files.sh.

# pair_is_inside CONTAINER: it exists, and no mount covers its /config/keys.
pair_is_inside() {
  ku_mounts=$(docker inspect -f '{{range .Mounts}}{{println .Destination}}{{end}}' "$1" 2>/dev/null) || return 1
  case $ku_line_break$ku_mounts$ku_line_break in
    *"$ku_line_break/config$ku_line_break"* | *"$ku_line_break/config/keys$ku_line_break"*) return 1 ;;
  esac
}

# copy_pair_out CONTAINER NAME FOLDER: its pair, as root-only files in FOLDER, which is made. A container that has its
# private key elsewhere (in a config file) has none. It may be stopped.
copy_pair_out() {
  ku_new=$3/.new
  rm -rf -- "$ku_new"
  mkdir -p -- "$3" "$ku_new"
  chmod 700 "$3" "$ku_new"
  for ku_part in "$2.pub" "$2.key"; do
    if ! ku_output=$(docker cp "$1:/config/keys/$ku_part" "$ku_new/$ku_part" 2>&1 </dev/null); then
      case $ku_output in
        *"ould not find the file"* | *"o such container:path"* | *"o such file or directory"*) continue ;;
        *) die 1 "docker could not copy /config/keys/$ku_part out of $1: $ku_output" ;;
      esac
    fi
    if [ -L "$ku_new/$ku_part" ] || ! [ -f "$ku_new/$ku_part" ]; then
      die 1 "/config/keys/$ku_part in $1 is not a plain file: copy the key pair out by hand"
    fi
    # An empty key file is a valid all-zero private key for Komodo.
    [ -s "$ku_new/$ku_part" ] || die 1 "/config/keys/$ku_part in $1 is empty: that private key is publicly known"
    chmod 600 "$ku_new/$ku_part"
  done
  if [ -e "$ku_new/$2.key" ]; then
    fsync_file "$ku_new/$2.key"
    # The private part last: once it is there, both are.
    for ku_part in "$2.pub" "$2.key"; do
      if [ -e "$ku_new/$ku_part" ]; then mv -f -- "$ku_new/$ku_part" "$3/$ku_part"; fi
    done
    fsync_file "$3"
  fi
  rm -rf -- "$ku_new"
}

# place_pair FOLDER NAME KEYS WHOSE: the pair of FOLDER in the folder KEYS. Its owner is that of KEYS, the service's own
# user. Exit code 72 where KEYS has another key.
place_pair() {
  if [ -e "$3/$2.key" ]; then
    file_digest "$3/$2.key"
    [ "$(sha256_of "$1/$2.key")" = "$sha256" ] ||
      die 72 "$3/$2.key is not $4: another program has written it; it was left as it is"
    return 0
  fi
  for ku_part in "$2.pub" "$2.key"; do
    if [ -e "$1/$ku_part" ]; then as_owner "$3/$ku_part" write_new "$3/$ku_part" <"$1/$ku_part"; fi
  done
  say written "$3/$2.key"
}

# move_pair_out CONTAINER NAME FOLDER KEYS: what the container has inside, in FOLDER and in KEYS, which is made. After
# the container was re-created or removed, what FOLDER has. A repeated call changes nothing.
move_pair_out() {
  if pair_is_inside "$1"; then copy_pair_out "$1" "$2" "$3"; fi
  if [ ! -e "$3/$2.key" ]; then return 0; fi
  if [ ! -d "$4" ]; then as_owner "$4" make_folder "$4"; fi
  place_pair "$3" "$2" "$4" "the key of $1"
}

# has_pair CONTAINER NAME FOLDER: the private key inside is that of FOLDER.
has_pair() {
  rm -rf -- "$3/.inside"
  mkdir -m 700 -- "$3/.inside"
  docker cp "$1:/config/keys/$2.key" "$3/.inside/$2.key" >/dev/null 2>&1 </dev/null || :
  ku_inside=$(sha256_of "$3/.inside/$2.key")
  rm -rf -- "$3/.inside"
  [ "$ku_inside" = "$(sha256_of "$3/$2.key")" ]
}

# put_pair_in CONTAINER NAME FOLDER: the pair of FOLDER inside of a container that does not run.
put_pair_in() {
  ku_new=$3/.in
  rm -rf -- "$ku_new"
  mkdir -p -- "$ku_new/config/keys"
  # Docker gives folders that exist in the container the mode of these.
  chmod 755 "$ku_new/config"
  for ku_part in "$2.pub" "$2.key"; do
    if [ -e "$3/$ku_part" ]; then cp -p -- "$3/$ku_part" "$ku_new/config/keys/$ku_part"; fi
  done
  ku_owner=$(docker inspect -f '{{.Config.User}}' "$1")
  case $ku_owner in [0-9]*) chown -R "$ku_owner" "$ku_new/config/keys" ;; esac
  docker cp "$ku_new/config" "$1:/" >/dev/null </dev/null || die 1 "docker could not copy the key pair into $1"
  rm -rf -- "$ku_new"
}
