"""
Live tests against other implementations of the gomux wire. See README.rst.
"""

# Before all else: it does away with the fast paths that GOMUX_PLAIN names.
import gomux.test  # noqa: F401
