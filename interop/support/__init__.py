"""
Helpers that the live tests share: peers and services as child processes.
"""

# Imported first: it switches off the fast paths that GOMUX_PLAIN names.
import gomux.test  # noqa: F401
