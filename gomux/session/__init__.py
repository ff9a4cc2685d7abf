# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
The API of the Go package: sessions and streams whose methods return Deferreds to await.

This room may import L{gomux._mux} and what lies below it, but not L{gomux.endpoints}.
"""

from gomux.session._conn import Conn as Conn
from gomux.session._session import Listener as Listener
from gomux.session._session import Session as Session
