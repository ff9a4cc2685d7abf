"""
Keep a CPU from going to sleep, in a process that gives way to all others.

A virtual machine gives a CPU that sleeps back to its host, and gets it again when the
host likes: that is most of what shows as stolen time where processes talk to each
other, and has nothing to do with what they say.
"""

from __future__ import annotations

import os
import sys


def main(cpu: int) -> None:
    parent = os.getppid()
    os.sched_setaffinity(0, {cpu})
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    # Also who is killed leaves nothing behind.
    while os.getppid() == parent:
        pass


if __name__ == "__main__":
    main(int(sys.argv[1]))
