"""Starts ipykernel bare, as Ship does, and prints the ms until it has run its first code."""
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from jupyter_client import BlockingKernelClient
from jupyter_client.connect import write_connection_file

CODE = sys.argv[1]

with tempfile.TemporaryDirectory(dir="/tmp") as folder:
    path, _ = write_connection_file(f"{folder}/kernel.json", transport="ipc", ip=f"{folder}/socket")
    client = BlockingKernelClient()
    client.load_connection_file(path)
    shell = Path(f"{folder}/socket-{client.shell_port}")
    began = time.perf_counter()
    kernel = subprocess.Popen(
        [sys.executable, "-P", "-s", "-m", "ipykernel_launcher", "-f", path],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )
    try:
        # Connecting earlier would wait for ZeroMQ's next attempt, which is not the kernel's time.
        while not shell.exists():
            if kernel.poll() is not None or time.perf_counter() - began > 60:
                sys.exit("the kernel did not start")
            time.sleep(0.001)
        client.start_channels(stdin=False, hb=False)
        sent = client.execute(CODE)
        while client.get_shell_msg(timeout=60)["parent_header"].get("msg_id") != sent:
            pass
        print(json.dumps([(time.perf_counter() - began) * 1e3]))
    finally:
        kernel.kill()
        kernel.wait()
