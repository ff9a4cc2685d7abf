"""
Tests for L{gomux.command}.
"""
