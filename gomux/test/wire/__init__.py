"""
Tests for L{gomux._wire}.
"""
