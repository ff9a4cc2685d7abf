# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
Streams as endpoints: whatever connects or listens through an endpoint can do so over a
mux.  The C{gomux:} endpoint strings are parsed here too.

This room may import L{gomux._mux} and what lies below it, but not L{gomux.session}.
"""

from gomux._mux.dialler import retryPolicy as retryPolicy
from gomux.endpoints._endpoints import MuxClientEndpoint as MuxClientEndpoint
from gomux.endpoints._endpoints import MuxPort as MuxPort
from gomux.endpoints._endpoints import MuxServerEndpoint as MuxServerEndpoint
from gomux.endpoints._endpoints import StreamClientEndpoint as StreamClientEndpoint
from gomux.endpoints._endpoints import StreamPort as StreamPort
from gomux.endpoints._endpoints import StreamServerEndpoint as StreamServerEndpoint
