"""
The tests of this package; C{peers} has the programs that they run.
"""

# Before all else: it takes out the fast paths that GOMUX_PLAIN names.
import gomux.test  # noqa: F401
