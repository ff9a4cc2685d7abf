# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
Tests for L{gomux._carrier.restraint}.
"""

from __future__ import annotations

from twisted.internet.abstract import FileDescriptor
from twisted.internet.interfaces import ISSLTransport
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import alsoProvides

from gomux._carrier.restraint import (
    STRANGERS_OUTPUT,
    STRANGERS_READ,
    leaveOutput,
    release,
    restrain,
)
from gomux.test.support.kernel import Descriptor


class Secure(StringTransport):
    """
    Stands for TLS.
    """

    def __init__(self) -> None:
        super().__init__()
        self.transport = Descriptor()
        alsoProvides(self, ISSLTransport)


class RestraintTests(SynchronousTestCase):
    """
    A connection with TLS, and others.
    """

    def setUp(self) -> None:
        self.secure = Secure()
        self.below = self.secure.transport
        restrain(self.secure)

    def test_output(self) -> None:
        """
        A connection is dropped, once, if a stranger leaves many bytes of TLS unread,
        but not while it takes them.
        """
        for _ in range(3):
            self.below.write(bytes(STRANGERS_OUTPUT))
            self.assertFalse(self.below.disconnecting)
            self.below.drain(STRANGERS_OUTPUT)
        self.below.write(bytes(STRANGERS_OUTPUT))
        lost: list[None] = []
        self.patch(self.below, "loseConnection", lambda: lost.append(None))
        for _ in range(2):
            self.below.write(b"x")
        self.assertEqual(lost, [None])

    def test_read(self) -> None:
        """
        Only a little is read at once, until the peer has shown a key.
        """
        self.assertEqual(self.below.bufferSize, STRANGERS_READ)
        release(self.secure)
        self.assertEqual(self.below.bufferSize, FileDescriptor.bufferSize)
        self.assertIsNone(self.below.producer)

    def test_otherProducer(self) -> None:
        """
        The output can get another producer, which stays.
        """
        leaveOutput(self.secure)
        self.assertEqual(self.below.bufferSize, STRANGERS_READ)
        producer = StringTransport()
        self.below.registerProducer(producer, True)
        for change in (restrain, leaveOutput, release):
            change(self.secure)
            self.assertIs(self.below.producer, producer)

    def test_otherTransports(self) -> None:
        """
        Without TLS, or without a socket below it, nothing is changed.
        """
        plain, memory = Descriptor(), Secure()
        memory.transport = StringTransport()  # type: ignore[assignment]
        for transport in (plain, memory, None):
            for change in (restrain, leaveOutput, release):
                change(transport)
        self.assertEqual(plain.bufferSize, FileDescriptor.bufferSize)
        self.assertIsNone(plain.producer)
