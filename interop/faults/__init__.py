"""
What the tests of faults and abuse are made of, and the matrix of their results.
"""

# Before all else: it takes out the fast paths that GOMUX_PLAIN names.
import gomux.test  # noqa: F401
