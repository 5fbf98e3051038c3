"""Time limits that do not depend on how busy the machine is.

A candidate is charged for the processor time that it uses and for the time in which it sleeps, but not for the time
in which it waits for a processor: verdicts are the same on a loaded machine.
"""

import os
import time

POLL = 0.1
# Wall-clock time, as a multiple of the limit, after which patience ends in any case.
STARVED = 40
TICKS = os.sysconf("SC_CLK_TCK")


class TimedOut(Exception):
    """The candidate did not answer in time."""


class Patience:
    def __init__(self, limit):
        self.left = limit
        self.end = time.monotonic() + STARVED * limit
        self.last = time.monotonic()
        self.used = processor_time()[0]

    def start(self):
        """Before a wait."""
        self.last = time.monotonic()
        if self.last > self.end:
            raise TimedOut("not done, even without counting the time that others used the processor")

    def spend(self):
        """After POLL seconds of waiting in vain."""
        now = time.monotonic()
        used, runnable = processor_time()
        self.left -= max(0.0, used - self.used) if runnable else min(now - self.last, 2 * POLL)
        self.last, self.used = now, used
        if self.left <= 0 or now > self.end:
            raise TimedOut("no answer in time")


def processor_time():
    """(seconds that all processes below this one have used so far, whether one of them could run now)."""
    times = os.times()
    used, runnable = times.children_user + times.children_system, False
    pending = children(os.getpid())
    while pending:
        process = pending.pop()
        try:
            with open(f"/proc/{process}/stat") as file:
                fields = file.read().rpartition(")")[2].split()
        except OSError:
            continue
        runnable = runnable or fields[0] in "RD"
        used += sum(int(field) for field in fields[11:15]) / TICKS
        pending += children(process)
    return used, runnable


def children(process):
    try:
        with open(f"/proc/{process}/task/{process}/children") as file:
            return [int(word) for word in file.read().split()]
    except OSError:
        return []
