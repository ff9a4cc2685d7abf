"""
Tests for L{gomux.endpoints}.
"""
