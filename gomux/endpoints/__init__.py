# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
Twisted endpoints whose connections are the streams of a mux, and the parser of
C{gomux:} endpoint strings.

This room may import L{gomux._mux} and what lies below it, but not L{gomux.session}.
"""

from gomux._mux.dialler import retryPolicy as retryPolicy
from gomux.endpoints._endpoints import MuxClientEndpoint as MuxClientEndpoint
from gomux.endpoints._endpoints import MuxServerEndpoint as MuxServerEndpoint
from gomux.endpoints._endpoints import StreamClientEndpoint as StreamClientEndpoint
from gomux.endpoints._endpoints import StreamPort as StreamPort
from gomux.endpoints._endpoints import StreamServerEndpoint as StreamServerEndpoint
from gomux.endpoints._ports import MuxPort as MuxPort
