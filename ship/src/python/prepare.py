"""Run once in an IPython kernel, before any code of the user's.

A thread's output stays with the cell that started it. ipykernel 7 gives what a thread writes to whichever cell runs at that moment, unless the thread has been told its own;
older ones remember it by themselves.

Text leaves in pieces. ipykernel gathers what is printed within a fifth of a second into one message, of any size; a
kernel short of memory loses it, and Ship keeps only the beginning of a message that is too large.

Where either cannot be done, nothing is changed.
"""

import sys
import threading

from IPython import get_ipython


def remember(start):
    def marked_start(self):
        own = []
        for teller in (sys.stdout, sys.stderr, get_ipython().display_pub, get_ipython().displayhook):
            if hasattr(teller, "set_thread_parent"):
                own.append((teller.set_thread_parent, teller.parent_header))
        run = self.run

        def marked_run():
            # The thread would otherwise refer to itself for ever.
            del self.run
            for set_parent, parent in own:
                set_parent(parent)
            run()

        if own:
            self.run = marked_run
        return start(self)

    return marked_start


threading.Thread.start = remember(threading.Thread.start)

PIECE = 256 << 10


def in_pieces(write):
    def write_in_pieces(self, string):
        gathered = getattr(self, "_gathered", 0)
        if not isinstance(string, str) or gathered + len(string) < PIECE:
            # Too much is counted where a flush by time came between: then the next one comes earlier.
            self._gathered = gathered + (len(string) if isinstance(string, str) else 0)
            return write(self, string)
        for start in range(0, len(string), PIECE):
            write(self, string[start : start + PIECE])
            self.flush()
        self._gathered = 0
        return len(string)

    return write_in_pieces


# In the class: IPython exchanges the method of the stream itself with every cell.
kind = type(sys.stdout)
if hasattr(sys.stdout, "pub_thread") and type(sys.stderr) is kind:
    kind.write = in_pieces(kind.write)
