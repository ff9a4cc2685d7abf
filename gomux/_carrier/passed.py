# -*- test-case-name: gomux.test.carrier.test_passed -*-
# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
Descriptors that somebody passes over a Unix socket, although nobody here wants any.
"""

from __future__ import annotations

import os

from twisted.internet.interfaces import IFileDescriptorReceiver
from zope.interface import implementer


@implementer(IFileDescriptorReceiver)
class PassedDropper:
    """
    Closes each descriptor.  Twisted would close it too, but would log a line for each
    message that passes some, without a limit.
    """

    def fileDescriptorReceived(self, descriptor: int) -> None:
        """
        Close a descriptor.
        """
        os.close(descriptor)
