"""
Tests for L{gomux.status}.
"""
