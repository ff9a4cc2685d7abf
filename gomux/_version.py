"""
The version, here and nowhere else: packaging and release notes read it.
"""

__version__ = "1.0.0.dev0"
