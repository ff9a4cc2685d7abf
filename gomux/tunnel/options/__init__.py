# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
The options of C{twistd gomux}, from the command line and from a file: a module for each
group of them, the help, and what C{--check} says.

The options make a L{plan<gomux.tunnel._plan>}.  This folder may import all of
L{gomux.tunnel} but C{command} and what runs the service.
"""
