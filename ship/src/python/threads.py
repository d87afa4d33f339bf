"""Run once in an IPython kernel: a thread's output stays with the cell that started it.

ipykernel 7 gives what a thread writes to whichever cell runs at that moment, unless the thread has been told its own;
older ones remember it by themselves. Where this cannot be done, nothing is changed.
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
