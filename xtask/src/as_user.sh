# Runs a command as a normal user who may see this build, and nothing else of whoever runs the tests.
# Runs as root, first in a mount and PID namespace of its own: everything mounted or started here ends with it.
# Arguments: the user, then directories to show (the workspace, the target directory, the Python), `--`, the command.
set -euo pipefail
user=$1
shift
shown=()
while [ "$1" != -- ]; do shown+=("$1"); shift; done
shift

stage=$(mktemp -d /tmp/bay-stage.XXXXXX)
home=$(mktemp -d /tmp/bay-home.XXXXXX)
trap 'umount -R -l "$stage"; rm -rf -- "$home"; rmdir -- "$stage"' EXIT
chown "$user:" "$home"
mount -t tmpfs tmpfs "$stage"

# The outermost ancestor of $1 that others may not walk through (`/root`, as a rule); empty where there is none.
blocked() {
  local path= part
  IFS=/ read -r -a parts <<<"${1#/}"
  for part in "${parts[@]}"; do
    path=$path/$part
    if [ $((0$(stat -c %a "$path") & 1)) -eq 0 ]; then printf %s "$path"; return; fi
  done
}

# Keep hold of what to show, cover what is private with an empty directory, put what is shown back in its place.
# So paths compiled into tests stay true.
declare -A covered=()
for index in "${!shown[@]}"; do
  mkdir "$stage/$index"
  mount --bind "${shown[index]}" "$stage/$index"
  private=$(blocked "${shown[index]}")
  covers[index]=$private
  if [ -n "$private" ]; then covered[$private]=1; fi
done
for private in "${!covered[@]}"; do mount -t tmpfs -o mode=755 tmpfs "$private"; done
for index in "${!shown[@]}"; do
  if [ -n "${covers[index]}" ]; then
    mkdir -p "${shown[index]}"
    mount --move "$stage/$index" "${shown[index]}"
  fi
done

# Not exec: this shell is the first process of the namespace and buries orphans.
cd /
setpriv --reuid="$user" --regid="$user" --init-groups -- env -i \
  PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin LANG=C.UTF-8 CI=true \
  HOME="$home" USER="$user" LOGNAME="$user" "$@"
