"""Runs cells for Ship where there is no ipykernel: one persistent namespace, one request after the other.

Descriptor 0 is a stream socket to Ship; it moves out of the way, and standard input becomes empty. Both ways go
frames: four bytes of length (big endian), then `TOKEN KIND\\nCONTENT`, the content JSON in the shapes of the Jupyter
protocol. Every request brings a token of its own, which all answers to it carry, so that bytes that user code writes
to a wrong descriptor are not taken for an answer. Text goes through descriptors 1 and 2, which are pipes to Ship: what
children and C code write there is seen, too. Works on Python 3.8 and newer; imports only what a cell needs anyhow.
"""

import __future__
import ast
import base64
import builtins
import fcntl
import importlib.machinery
import io
import json
import linecache
import os
import signal
import struct
import sys
import termios
import threading
import time
import traceback
import types

# Longest content sent, in bytes: Ship breaks with whoever sends more. Room is left for the frame's head.
MAX_CONTENT = (6 << 20) - 1024
# Characters of an exception's words, and of its traceback: what a person can still read.
MAX_WORDS = 32 << 10
# Cells whose source is kept for tracebacks: without a bound each call would cost memory for ever.
MAX_SOURCES = 256
# Longest wait, in seconds, for Ship to have read one stream before the other is written to.
MAX_TURN_WAIT = 0.01
# Where Python would exit, so that the reason can be told from user code's own exit.
LOST_CONTROL = 71

PID = os.getpid()
# High numbers: user code that counts, closes or replaces descriptors does so at the low ones.
CONTROL = fcntl.fcntl(0, fcntl.F_DUPFD_CLOEXEC, 512)
KEPT = {fd: fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 512) for fd in (1, 2)}
FUTURES = 0
for _feature in __future__.all_feature_names:
    FUTURES |= getattr(__future__, _feature).compiler_flag


class State:
    """What changes from cell to cell."""

    token = ""
    # Number of the cell that runs; 0 between cells.
    turn = 0
    count = 0
    # `from __future__ import …` of earlier cells, as compiler flags.
    futures = 0
    # An interrupt that came while a frame was being written.
    interrupted = False
    # The stream that was written to last.
    last = None
    event_loop = None


SENDING = threading.Lock()


def hold(_number, _frame):
    """Handles SIGINT where nothing may be torn apart."""
    State.interrupted = True


def send(kind, content):
    """Sends a frame. Only the process that Ship started does: a fork of it shares the socket."""
    if os.getpid() != PID:
        return
    # Lone surrogates are no text; NaN is no JSON and was kept out by `clean`.
    body = json.dumps(content, ensure_ascii=False).encode("utf-8", "replace")
    if len(body) > MAX_CONTENT:
        kind, body = "cut", b"{}"
    data = ("%s %s\n" % (State.token, kind)).encode() + body
    data = memoryview(struct.pack(">I", len(data)) + data)
    main = threading.current_thread() is threading.main_thread()
    # Python runs signal handlers in its main thread only; half a frame would be the end of the conversation.
    before = signal.signal(signal.SIGINT, hold) if main else None
    try:
        with SENDING:
            while data:
                data = data[os.write(CONTROL, data):]
    except OSError:
        lost_control()
    finally:
        if main:
            signal.signal(signal.SIGINT, before or signal.default_int_handler)
    if main and State.interrupted and before is not hold:
        State.interrupted = False
        raise KeyboardInterrupt


def receive():
    """The next request, as token and content; ends the process when Ship is gone."""

    def exactly(count):
        parts = []
        while count:
            part = os.read(CONTROL, min(count, 1 << 20))
            if not part:
                os._exit(0)
            parts.append(part)
            count -= len(part)
        return b"".join(parts)

    try:
        (length,) = struct.unpack(">I", exactly(4))
        head, _, content = exactly(length).partition(b"\n")
    except OSError:
        lost_control()
    return head.decode().split(" ")[0], json.loads(content.decode("utf-8"))


def lost_control():
    try:
        os.write(2, b"user code closed the descriptor on which the interpreter speaks with Ship\n")
    except OSError:
        pass
    os._exit(LOST_CONTROL)


class Stream(io.TextIOWrapper):
    """sys.stdout or sys.stderr: by lines, in order with the other one, and telling late output from the cell's."""

    def write(self, text):
        late = getattr(threading.current_thread(), "_bay_turn", None) not in (None, State.turn)
        if late and os.getpid() == PID:
            # A thread of an earlier cell: the present one must not be blamed.
            send("late", {"text": str(text)[: MAX_WORDS]})
            return len(text)
        if State.last is not self:
            wait_until_read(State.last)
            State.last = self
        return super().write(text)


def wait_until_read(stream):
    """Lets Ship take what lies in one pipe, so that it does not read the other one first."""
    if stream is None:
        return
    give_up = time.monotonic() + MAX_TURN_WAIT
    try:
        stream.flush()
        while time.monotonic() < give_up:
            left = fcntl.ioctl(stream.fileno(), termios.FIONREAD, b"\0\0\0\0")
            if struct.unpack("i", left)[0] == 0:
                return
            time.sleep(0.0001)
    except (OSError, ValueError):
        pass


class NoInput(io.TextIOBase):
    """sys.stdin: nobody is there to type."""

    def readline(self, *_):
        raise EOFError("input is not supported here: nobody can answer; put the value into the code")

    read = readlines = __next__ = readline

    def readable(self):
        return True

    def fileno(self):
        return 0

    def close(self):
        """`quit()` closes its input before it raises SystemExit."""


def repair():
    """Makes good what the last cell may have closed."""
    for fd, kept in KEPT.items():
        try:
            os.fstat(fd)
        except OSError:
            os.dup2(kept, fd)
    for name, fd in (("stdout", 1), ("stderr", 2)):
        stream = getattr(sys, name, None)
        if stream is None or getattr(stream, "closed", False):
            file = io.BufferedWriter(io.FileIO(fd, "w", closefd=False))
            fresh = Stream(file, encoding="utf-8", errors="backslashreplace", newline="\n", line_buffering=True)
            setattr(sys, name, fresh)
            setattr(sys, "__%s__" % name, fresh)
    if not isinstance(sys.stdin, io.IOBase):
        sys.stdin = NoInput()


def mark_threads():
    """Threads remember the cell that started them."""
    start = threading.Thread.start

    def marked_start(self):
        own = getattr(threading.current_thread(), "_bay_turn", None)
        self._bay_turn = State.turn if own is None else own
        return start(self)

    threading.Thread.start = marked_start


# What a value can show itself as, beside its repr: the method, and whether it gives bytes.
RICH = {
    "_repr_html_": ("text/html", False),
    "_repr_markdown_": ("text/markdown", False),
    "_repr_latex_": ("text/latex", False),
    "_repr_svg_": ("image/svg+xml", False),
    "_repr_png_": ("image/png", True),
    "_repr_jpeg_": ("image/jpeg", True),
    "_repr_json_": ("application/json", None),
}


def clean(value, binary=None):
    """A value of a MIME bundle as JSON takes it, or None."""
    if isinstance(value, (bytes, bytearray)):
        return base64.b64encode(bytes(value)).decode()
    if isinstance(value, str):
        return value
    if binary is None and isinstance(value, (dict, list, int, float, bool)):
        try:
            return json.loads(json.dumps(value, allow_nan=False))
        except (TypeError, ValueError):
            return str(value)
    return None


def describe(value):
    """The MIME bundle of a value."""
    bundle = {}
    if not isinstance(value, type):
        for name, (kind, binary) in RICH.items():
            shown = clean(ask(value, name), binary)
            if shown is not None:
                bundle[kind] = shown
        given = ask(value, "_repr_mimebundle_", include=None, exclude=None)
        if isinstance(given, dict):
            for kind, data in given.items():
                shown = clean(data)
                if isinstance(kind, str) and shown is not None:
                    bundle[kind] = shown
    bundle.setdefault("text/plain", repr(value))
    return bundle


def ask(value, name, **arguments):
    """What a method of the value's gives; a failure is told on stderr and costs only this form."""
    try:
        method = getattr(value, name, None)
        shown = method(**arguments) if callable(method) else None
    except Exception:
        traceback.print_exc()
        return None
    # Some give metadata beside the data.
    return shown[0] if isinstance(shown, tuple) and shown else shown


def displayhook(value):
    if value is None:
        return
    builtins._ = None
    send("execute_result", {"data": describe(value), "metadata": {}, "execution_count": State.count})
    builtins._ = value


def show_figures(*_, **__):
    """Sends the open figures and closes them."""
    pyplot = sys.modules.get("matplotlib.pyplot")
    if pyplot is None or not hasattr(pyplot, "get_fignums"):
        return
    for number in pyplot.get_fignums():
        figure = pyplot.figure(number)
        picture = io.BytesIO()
        try:
            figure.savefig(picture, format="png", bbox_inches="tight")
        finally:
            # Also one that cannot be drawn, or every later cell would fail with it.
            pyplot.close(figure)
        data = {"image/png": base64.b64encode(picture.getvalue()).decode(), "text/plain": repr(figure)}
        send("display_data", {"data": data, "metadata": {}, "transient": {}})


class FigureFinder:
    """Lets `matplotlib.pyplot.show` show here, without importing matplotlib for anybody who does not."""

    @staticmethod
    def find_spec(name, path=None, target=None):
        if name != "matplotlib.pyplot":
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None:
            run = spec.loader.exec_module

            def exec_module(module):
                run(module)
                elsewhere = module.show

                def show(*arguments, **named):
                    inline = sys.modules["matplotlib"].get_backend().lower() == "agg"
                    return (show_figures if inline else elsewhere)(*arguments, **named)

                module.show = show

            spec.loader.exec_module = exec_module
        return spec


def run_code(code, names):
    """Runs compiled code; awaits what it awaits at its top level."""
    result = eval(code, names)
    if not code.co_flags & 0x80:  # CO_COROUTINE
        return result
    import asyncio

    if State.event_loop is None or State.event_loop.is_closed():
        State.event_loop = asyncio.new_event_loop()
        asyncio.set_event_loop(State.event_loop)
    task = State.event_loop.create_task(result)
    try:
        return State.event_loop.run_until_complete(task)
    except BaseException:
        # An interrupt leaves the task behind: it must not go on in the next cell.
        if not task.done():
            task.cancel()
            State.event_loop.call_soon(State.event_loop.stop)
            State.event_loop.run_forever()
        raise


def run_cell(source, names):
    """Runs a cell like the interactive interpreter: the value of a last expression is shown."""
    # From here on an interrupt is heard.
    send("begun", {})
    name = "<python-%d>" % State.count
    linecache.cache[name] = (len(source), None, source.splitlines(True), name)
    linecache.cache.pop("<python-%d>" % (State.count - MAX_SOURCES), None)
    flags = State.futures | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    tree = compile(source, name, "exec", flags | ast.PyCF_ONLY_AST, True)
    last = None
    if tree.body and isinstance(tree.body[-1], ast.Expr):
        last = ast.Expression(tree.body.pop().value)
    code = compile(tree, name, "exec", flags, True)
    State.futures |= code.co_flags & FUTURES
    if last is not None:
        # Compiled before anything runs, so that an error in it leaves nothing half done.
        last = compile(last, name, "eval", State.futures | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, True)
    try:
        run_code(code, names)
        if last is not None:
            sys.displayhook(run_code(last, names))
    finally:
        show_figures()


def words(error):
    """Name, text and traceback of an exception, from the first frame of the user's."""
    name = str(getattr(type(error), "__name__", "Exception"))[: MAX_WORDS]
    try:
        value = str(error)[: MAX_WORDS]
    except BaseException:
        value = "<the exception has no text>"
    try:
        trace = error.__traceback__
        while trace is not None and not trace.tb_frame.f_code.co_filename.startswith("<python-"):
            trace = trace.tb_next
        lines = traceback.format_exception(type(error), error, trace)
        text = "".join(lines).rstrip("\n")
    except BaseException:
        text = "%s: %s" % (name, value)
    if len(text) > MAX_WORDS:
        half = MAX_WORDS // 2
        text = text[:half] + "\n[…]\n" + text[-half:]
    return {"ename": name, "evalue": value, "traceback": text.split("\n")}


def leave_fork(error):
    """A fork of the interpreter came to the end of its cell: it ends as a script would."""
    code = 0
    if isinstance(error, SystemExit):
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
    elif error is not None:
        traceback.print_exception(type(error), error, error.__traceback__)
        code = 1
    flush()
    os._exit(code & 0xFF)


def guarded(work, *arguments):
    """Does the work where an interrupt raises; returns the exception. Afterwards an interrupt does nothing."""
    error = None
    # One that came for what was before.
    State.interrupted = False
    try:
        try:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            work(*arguments)
        finally:
            signal.signal(signal.SIGINT, hold)
    except BaseException as raised:
        error = raised
    # The `finally` itself may have been interrupted.
    while True:
        try:
            signal.signal(signal.SIGINT, hold)
            break
        except BaseException as raised:
            error = error or raised
    State.interrupted = False
    return error


def flush():
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except Exception:
            pass


def serve(names):
    while True:
        token, request = receive()
        State.token, State.last = token, None
        repair()
        if request["silent"]:
            error = guarded(exec, request["code"], {})
        else:
            State.count += 1
            State.turn = State.count
            error = guarded(run_cell, request["code"], names)
        if os.getpid() != PID:
            leave_fork(error)
        flush()
        State.turn = 0
        reply = {"status": "ok", "execution_count": State.count}
        if error is not None:
            reply.update(words(error), status="error")
            error = None
        send("execute_reply", reply)


def main():
    signal.signal(signal.SIGINT, hold)
    null = os.open("/dev/null", os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    sys.stdout = sys.stderr = sys.stdin = None
    repair()
    mark_threads()
    sys.meta_path.insert(0, FigureFinder)
    sys.displayhook = sys.__displayhook__ = displayhook
    sys.argv = [""]
    # The user's cells are the main module, so that what they define can be pickled by name.
    own = sys.modules["__main__"]
    user = types.ModuleType("__main__")
    user.__builtins__ = builtins
    sys.modules["__main__"] = user
    serve(user.__dict__)
    return own


main()
