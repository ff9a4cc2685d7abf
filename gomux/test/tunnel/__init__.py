"""
Tests for L{gomux.tunnel}.
"""
