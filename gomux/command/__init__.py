# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
The commands of C{python -m gomux}: C{genpsk}, C{ping} and C{pipe}.

This room may import L{gomux.tunnel} and what lies below it.
"""
