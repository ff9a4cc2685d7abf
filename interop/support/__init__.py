"""
What the tests of this package share: peers and services as child processes.
"""

# Before all else: it takes out the fast paths that GOMUX_PLAIN names.
import gomux.test  # noqa: F401
