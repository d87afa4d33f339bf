"""Run once in an IPython kernel, before any code of the user's.

A thread's output stays with the cell that started it. ipykernel 7 gives what a thread writes to whichever cell runs at that moment, unless the thread has been told its own;
older ones remember it by themselves.

Text leaves in pieces. ipykernel gathers what is printed within a fifth of a second into one message, of any size, and
Ship keeps only the beginning of a message that is too large.

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


def in_pieces(gathered):
    def in_pieces_gathered(self):
        for parent, text in gathered(self):
            for start in range(0, len(text), PIECE):
                yield parent, text[start : start + PIECE]

    return in_pieces_gathered


# In the class: IPython puts the methods of the stream itself back after every cell.
kind = type(sys.stdout)
if hasattr(kind, "_flush_buffers"):
    kind._flush_buffers = in_pieces(kind._flush_buffers)
