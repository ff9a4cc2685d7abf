"""
The tests of this package; C{peers} has the programs that they run.
"""

# Imported first: it switches off the fast paths that GOMUX_PLAIN names.
import gomux.test  # noqa: F401
