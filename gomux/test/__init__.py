"""
Tests for L{gomux}.
"""
