# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
The commands of C{python -m gomux}, the manual pages, and the completion of shells.

It gets the options of C{twistd gomux} from L{gomux.__main__}, because L{gomux.tap} lies
above it.
"""
