"""User code that plays foul with /workspace/race while Ship works in it, until /workspace/stop exists.

Exchanges the directory `d`, what is in it, and every passing name it sees for links that lead out, and refills `e`
while it is deleted. Leaves `d` as the real directory and prints how often it exchanged something.
"""

import ctypes
import os

RACE = "/workspace/race"
OUT = ["/tmp/outside", "../../../tmp/outside", "/etc", "/"]
renameat2 = ctypes.CDLL(None, use_errno=True).renameat2


def exchange(a, b):
    return renameat2(-100, a.encode(), -100, b.encode(), 2) == 0


def link(target, path):
    try:
        os.symlink(target, path)
    except OSError:
        pass


def quiet(call, *args):
    try:
        return call(*args)
    except OSError:
        return None


os.makedirs(f"{RACE}/d/sub")
os.makedirs(f"{RACE}/links")
for name in ("file", "sub/file"):
    with open(f"{RACE}/d/{name}", "w") as f:
        f.write("inside")
for n, target in enumerate(OUT):
    link(target, f"{RACE}/links/{n}")
    link(f"{target}/canary", f"{RACE}/links/file{n}")
    link(f"{target}/tree", f"{RACE}/links/tree{n}")
quiet(os.mkdir, f"{RACE}/ready")

count = 0
n = 0
while not os.path.exists("/workspace/stop"):
    n = (n + 1) % len(OUT)
    for inner, outer in ((f"{RACE}/d/sub", f"links/tree{n}"), (f"{RACE}/d/file", f"links/file{n}")):
        if exchange(inner, f"{RACE}/{outer}"):
            count += 1
            exchange(inner, f"{RACE}/{outer}")
    if exchange(f"{RACE}/d", f"{RACE}/links/{n}"):
        count += 1
        # Ship is within the directory it opened by its name, which is now another.
        for name in quiet(os.listdir, f"{RACE}/links/{n}") or ():
            if name.startswith(".bay-"):
                quiet(os.unlink, f"{RACE}/links/{n}/{name}")
                link("/tmp/outside/canary", f"{RACE}/links/{n}/{name}")
        exchange(f"{RACE}/d", f"{RACE}/links/{n}")
    # Made elsewhere: by its name in `e` it could be made through a link.
    quiet(os.makedirs, f"{RACE}/fresh/y")
    quiet(os.mkdir, f"{RACE}/e")
    quiet(os.rename, f"{RACE}/fresh", f"{RACE}/e/x")
    link("/tmp/outside/tree", f"{RACE}/e/l")
    if exchange(f"{RACE}/e/x", f"{RACE}/e/l"):
        count += 1
print(count)
