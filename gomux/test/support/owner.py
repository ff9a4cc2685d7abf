"""
Files of another user, for tests that are run by any user.
"""

from __future__ import annotations

import os

from twisted.trial.unittest import SynchronousTestCase


def owned(test: SynchronousTestCase, user: int) -> None:
    """
    Have each open file seem to be a user's, until the test ends.
    """
    fstat = os.fstat

    def owned(descriptor: int) -> os.stat_result:
        found = list(fstat(descriptor))
        found[4] = user
        return os.stat_result(found)

    test.patch(os, "fstat", owned)
