"""
Tests for L{gomux._mux}.
"""
