# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
The commands of C{python -m gomux}, the manual pages, and the completion of shells.

This room may import L{gomux.tap} and what lies below it.
"""
