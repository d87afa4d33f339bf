"""Stands in for Bay's local driver in Ship's own tests.

usage: launch.py two_uid|nested_pid SOCKET PROGRAM ARGUMENT...

Binds a listening socket at SOCKET as descriptor 3; for two_uid (root only) becomes host user 100000 in a user
namespace of 65536 ids; then becomes PROGRAM.
"""

import ctypes
import os
import socket
import sys

BASE, COUNT = 100000, 65536
CLONE_NEWUSER = 0x10000000


def listen(path):
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(path)
    os.chmod(path, 0o666)
    listener.listen(128)
    fd = listener.detach()
    if fd != 3:
        os.dup2(fd, 3)
        os.close(fd)
    os.set_inheritable(3, True)


def map_ids():
    """The parent must have privilege to write the maps, the child must not have it when it parts: so a helper
    that stays root writes them for its parent."""
    parted_r, parted_w = os.pipe()
    mapped_r, mapped_w = os.pipe()
    helper = os.fork()
    if helper == 0:
        os.read(parted_r, 1)
        parent = os.getppid()
        for kind in ("uid_map", "gid_map"):
            with open(f"/proc/{parent}/{kind}", "w") as file:
                file.write(f"0 {BASE} {COUNT}\n")
        os.write(mapped_w, b"x")
        os._exit(0)
    os.setgroups([])
    os.setresgid(BASE, BASE, BASE)
    os.setresuid(BASE, BASE, BASE)
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(4, 1, 0, 0, 0)  # dumpable again, or the maps belong to root
    if libc.unshare(CLONE_NEWUSER) != 0:
        raise OSError(ctypes.get_errno(), "unshare")
    os.write(parted_w, b"x")
    if os.read(mapped_r, 1) != b"x":
        raise RuntimeError("the maps were not written")
    os.waitpid(helper, 0)
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)


mode, path, *command = sys.argv[1:]
listen(path)
if mode == "two_uid":
    map_ids()
os.execvp(command[0], command)
