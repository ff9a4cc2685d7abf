# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
Bytes to frames and back: keys and sealing, frames and their parser, windows and their
growth, the handshake and the keys of strict mode, and files of pre-shared keys.

Nothing here knows a socket, a reactor or a stream.  This room may import
L{gomux.error}, L{gomux.limits} and L{gomux.interfaces}, and Twisted only through
L{gomux.error}.
"""
