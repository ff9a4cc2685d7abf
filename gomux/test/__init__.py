"""
Tests for L{gomux}, with all of its fast paths or, as C{GOMUX_PLAIN} in the environment
says, without some: see L{gomux.test.support.plainpaths}.
"""

import os

if os.environ.get("GOMUX_PLAIN"):
    from gomux.test.support import plainpaths

    plainpaths.use(plainpaths.chosen(os.environ["GOMUX_PLAIN"]))
