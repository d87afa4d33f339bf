#!/usr/bin/python3 -I
# Stands in for the runtime: pid 1, the listening socket on descriptor 3, its configuration on stdin.
# Answers one JSON request a connection: {"code": "...", "as_user": bool} runs Python and returns what `answer` is.
import json, os, signal, socket, subprocess, sys, threading

config = json.load(sys.stdin)
signal.signal(signal.SIGTERM, (lambda *_: None) if config["env"].get("DEAF") else (lambda *_: os._exit(0)))
print("stand-in runs", flush=True)
state = {}

# Where there is one identity, user code lives in a user, PID and mount namespace of its own, whose /proc has its
# switches covered: as Ship does it, without any capability to begin with.
NEST = """
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
def check(result):
    if result: raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
check(libc.unshare(0x10000000 | 0x20000000 | 0x20000))
open('/proc/self/setgroups', 'w').write('deny')
open('/proc/self/uid_map', 'w').write('1000 1000 1')
open('/proc/self/gid_map', 'w').write('1000 1000 1')
pid = os.fork()
if pid:
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
check(libc.mount(b'proc', b'/proc', b'proc', 14, None))
check(libc.mount(b'/proc/sys', b'/proc/sys', None, 4096, None))
check(libc.mount(None, b'/proc/sys', None, 4096 | 32 | 1 | 14, None))
os.execv('/usr/bin/python3', ['python3', '-I', '-c', sys.argv[1]])
"""

def run_as_user(code):
    code += "\nimport json; print(json.dumps(answer))"
    if config["isolation"] == "two_uid":
        who, command = {"user": 1000, "group": 1000, "extra_groups": []}, ["-c", code]
    else:
        who, command = {}, ["-c", NEST, code]
    done = subprocess.run(["/usr/bin/python3", "-I", *command],
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=60, **who)
    if done.returncode:
        return {"error": done.stderr.decode()}
    return {"answer": json.loads(done.stdout)}

def serve(connection):
    with connection:
        try:
            request = json.loads(connection.makefile().readline())
            if request.get("as_user"):
                reply = run_as_user(request["code"])
            else:
                scope = {"config": config, "state": state}
                exec(request["code"], scope)
                reply = {"answer": scope.get("answer")}
        except BaseException as error:
            reply = {"error": repr(error)}
        connection.sendall(json.dumps(reply).encode())

listener = socket.socket(fileno=3)
while True:
    connection, _ = listener.accept()
    threading.Thread(target=serve, args=(connection,), daemon=True).start()
