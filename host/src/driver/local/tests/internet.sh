# Run in a network and mount namespace of the test's own: makes a stand-in for the internet in a second one, with
# addresses that sandboxes may reach and others that they may not, and servers on all of them.
set -eu
mount --make-rprivate /
mount -t tmpfs tmpfs /run
ip link set lo up
ip netns add internet
ip link add up0 type veth peer name net0 netns internet
ip addr add 203.0.113.2/24 dev up0
ip link set up0 up
ip -n internet link set lo up
ip -n internet addr add 203.0.113.1/24 dev net0
for address in 198.51.100.7 10.9.9.9 172.20.1.1 192.168.77.7 169.254.169.254 100.64.9.9 10.99.0.53; do
    ip -n internet addr add "$address/32" dev lo
done
ip -n internet link set net0 up
ip route add default via 203.0.113.1
echo 0 > /proc/sys/net/ipv4/ip_forward
echo 'nameserver 10.99.0.53' > /run/resolv.conf
mount --bind /run/resolv.conf /etc/resolv.conf
# Rootless networking needs a device that this machine may not give to everybody.
mknod -m 666 /run/tun c 10 200
mount --bind /run/tun /dev/net/tun
server='
import os, socket, sys, threading
def tcp(port):
    listener = socket.create_server(("0.0.0.0", port))
    ready.release()
    while True:
        connection, peer = listener.accept()
        connection.sendall(peer[0].encode()); connection.close()
def udp(port):
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind((sys.argv[1], port))
    ready.release()
    while True:
        _, peer = s.recvfrom(100); s.sendto(peer[0].encode(), peer)
ready = threading.Semaphore(0)
for target, port in [(tcp, 8080), (tcp, 53), (udp, 53)]:
    threading.Thread(target=target, args=(port,), daemon=True).start()
for _ in range(3): ready.acquire()
os.write(1, b"ready")
os.close(1)
os.read(0, 1)
'
# Both servers end with their stdin, which ends with the test; neither holds on to its output.
mkfifo /run/internet-ready /run/host-ready
ip netns exec internet /usr/bin/python3 -I -c "$server" 10.99.0.53 < "$1" > /run/internet-ready 2> /dev/null &
/usr/bin/python3 -I -c "$server" 0.0.0.0 < "$1" > /run/host-ready 2> /dev/null &
shift
[ "$(cat /run/internet-ready)" = ready ]
[ "$(cat /run/host-ready)" = ready ]
"$@"
