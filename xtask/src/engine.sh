# A Docker engine for tests, in mount, PID and network namespaces of its own: bridges, firewall rules, mounts, containers
# and the engine itself end with this script, however that ends, and an engine of this machine's owner sees nothing of it.
# Runs as root, as the first process of the PID namespace, with the network namespace it came from open as 8.
# Arguments: a folder that is its own, the group that may speak to the engine. Prints its number outside once the engine
# answers, then ends when its input does, which is when whoever started it is gone.
set -euo pipefail
folder=$1
group=$2

# /proc is still the one from outside, and so is the number in it.
read -r outside _ </proc/self/stat
mount -t proc proc /proc

# The bridges that the engine looks for in /sys are those of this network namespace; control groups are the machine's.
mkdir "$folder/cgroup"
mount --rbind /sys/fs/cgroup "$folder/cgroup"
mount -t sysfs sysfs /sys
mount --rbind "$folder/cgroup" /sys/fs/cgroup
umount -R -l "$folder/cgroup"

# Where containerd has its sockets, whatever it is told.
mkdir -p /run/containerd
mount -t tmpfs -o mode=711 tmpfs /run/containerd

ip link set lo up
# A way out, for builds in this very namespace, without rules on the machine's own firewall. (From a bridge behind it
# connections open and then stall.) Root's pasta may not look into /proc of others once it has begun, so the namespace is
# handed over open. No ports, no way to the machine's loopback.
exec 9</proc/self/ns/net
nsenter --net=/proc/self/fd/8 -- pasta --foreground --runas 0:0 --config-net --mtu 1500 --no-map-gw \
  -t none -u none -T none -U none --netns-only --netns /proc/self/fd/9 \
  </dev/null >"$folder/pasta.log" 2>&1 &
exec 8<&- 9<&-

# Whatever the machine's own engine is configured to do.
echo '{}' >"$folder/daemon.json"
parent=/bay-engine-${folder##*-}
dockerd --config-file "$folder/daemon.json" --data-root "$folder/data" --exec-root "$folder/exec" \
  --pidfile "$folder/pid" --host "unix://$folder/docker.sock" --group "$group" \
  --exec-opt native.cgroupdriver=cgroupfs --cgroup-parent "$parent" --shutdown-timeout 5 \
  </dev/null >"$folder/log" 2>&1 &
engine=$!

# Seconds where the machine is busy.
until docker --host "unix://$folder/docker.sock" version >/dev/null 2>&1; do
  kill -0 "$engine" || exit 1
  [ "$SECONDS" -lt 60 ] || exit 1
  sleep 0.2
done
echo "$outside"
exec >/dev/null
cat

kill -TERM "$engine" 2>/dev/null || true
(sleep 30 && kill -KILL "$engine") &
wait "$engine" || true
# Those of containers that were there to the end are gone with them.
for _ in 1 2 3; do find /sys/fs/cgroup -depth -type d -path "*$parent*" -exec rmdir {} + 2>/dev/null && break; done
# Here, too: nobody else does it where whoever started this was killed.
rm -rf --one-file-system -- "$folder" || true
exit 0
