"""
Tests for L{gomux._carrier}.
"""
