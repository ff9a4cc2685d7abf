"""
Tests for L{gomux.testing}.
"""
