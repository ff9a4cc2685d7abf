# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
What the process shows of itself: the page about a mux.

This room may import L{gomux.tunnel} and what lies below it.
"""
