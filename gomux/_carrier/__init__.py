# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
The carrier's socket and the reactor's time: direct reads and writes, the rate of
accepting connections, turns, rates, watches, and polling for an answer that is due.

Nothing here knows of frames or streams.  This room may import L{gomux._wire} and what
lies below it.
"""
