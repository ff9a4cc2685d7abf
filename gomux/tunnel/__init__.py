# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
Forwarding.  A local connection continues as a stream, and a stream continues as a
connection to a target.  C{twistd gomux} runs both as a service.

This room may import L{gomux.endpoints}, L{gomux.session} and what lies below them.
"""

from gomux.limits import TunnelLimits
from gomux.tunnel._tunnel import Tunnel, forward, target

__all__ = ["Tunnel", "TunnelLimits", "forward", "target"]
