# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
The status page, which shows the peer the mux that the page was loaded through, and the
operator's port, which shows what the process does.

This room may import L{gomux.tunnel} and what lies below it.
"""
