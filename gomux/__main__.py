# -*- test-case-name: gomux.test.tunnel.test_commandline -*-
# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
C{python -m gomux}: see L{gomux.tunnel.command}.
"""

import sys

from gomux.tap import Options
from gomux.tunnel.command._options import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], Options()))
