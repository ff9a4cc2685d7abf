"""
Helpers for the tests of faults and abuse, and the matrix of their results.
"""

# Imported first: it switches off the fast paths that GOMUX_PLAIN names.
import gomux.test  # noqa: F401
