"""
Tests for L{gomux.session}.
"""
