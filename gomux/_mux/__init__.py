# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
The mux: it turns frames into streams and streams into frames.  Beside it are the
factory and the dialler, which make muxes, and the pool, which opens streams on them.

This package may import L{gomux._carrier} and the packages below that.
"""
