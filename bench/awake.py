"""
Keep a CPU from sleeping, with a busy process of the lowest priority.

A virtual machine gives a sleeping CPU back to its host, and may have to wait to get it
again.  While processes exchange messages, most of the stolen time comes from such
waits.  They say nothing about the software under test.
"""

from __future__ import annotations

import os
import sys


def main(cpu: int) -> None:
    parent = os.getppid()
    os.sched_setaffinity(0, {cpu})
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    # End with the parent process, even if it is killed.
    while os.getppid() == parent:
        pass


if __name__ == "__main__":
    main(int(sys.argv[1]))
