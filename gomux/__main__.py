# -*- test-case-name: gomux.test.command.test_options -*-
# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
C{python -m gomux}: see L{gomux.command}.
"""

import sys

from gomux.command._options import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
