# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
Forwarding: local connections continue as streams, streams continue as connections to a
target, and C{twistd gomux} runs both as a service.

This room may import L{gomux.endpoints}, L{gomux.session} and what lies below them.
"""

from gomux.limits import TunnelLimits
from gomux.tunnel._bridge import Tunnel, forward, target

__all__ = ["Tunnel", "TunnelLimits", "forward", "target"]
