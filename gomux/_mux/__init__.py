# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
Frames to streams and back: the mux, its scheduler, its streams, TLS within a stream,
and the factory, pool and dialler that make muxes and keep them.

This room may import L{gomux._carrier} and what lies below it.
"""
