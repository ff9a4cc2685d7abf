# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
Tests for L{gomux._mux.starttls}.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import ISSLTransport, ITLSTransport
from twisted.internet.ssl import optionsForClientTLS
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from gomux._mux.sender import HIGH_WATER
from gomux._mux.stream import Stream
from gomux.error import ConnectionClosed
from gomux.test.support.certificates import CERTIFICATE, NAME
from gomux.test.support.helpers import PushProducer, Recorder, Recorders
from gomux.testing import MuxPair


class StartTLSTests(SynchronousTestCase):
    """
    L{Stream.startTLS<gomux._mux.stream.Stream.startTLS>}
    """

    def setUp(self) -> None:
        self.served, self.opened = Recorders(), Recorders()
        self.pair = MuxPair(self.served)
        self.pair.client.openStream(self.opened)
        self.pair.flush()
        self.here: Recorder = self.opened.made[0]
        self.there: Recorder = self.served.made[0]
        self.clientOptions: Any = optionsForClientTLS(NAME, CERTIFICATE)
        self.serverOptions: Any = CERTIFICATE.options()

    def startTLS(self) -> None:
        self.there.stream.startTLS(self.serverOptions)
        self.here.stream.startTLS(self.clientOptions)
        self.settle()

    def settle(self) -> None:
        # Each side of a handshake takes some turns.
        for _ in range(10):
            self.pair.flush()

    def test_interfaces(self) -> None:
        """
        A stream can start TLS; one that has is secure, and says so.
        """
        transport = self.here.stream
        verifyObject(ITLSTransport, transport)
        self.assertFalse(ISSLTransport.providedBy(transport))
        self.startTLS()
        self.assertIs(self.here.transport, transport)
        verifyObject(ISSLTransport, transport)
        certificate = transport.getPeerCertificate()  # type: ignore[attr-defined]
        self.assertEqual(certificate.get_subject().CN, NAME)
        self.assertIsNotNone(transport.getHandle())  # type: ignore[attr-defined]

    def test_data(self) -> None:
        """
        What was written before goes as it is, what is written after encrypted,
        in both directions.
        """
        self.here.stream.write(b"before, ")
        self.settle()
        self.startTLS()
        self.here.stream.write(b"after")
        self.there.stream.writeSequence([b"and ", b"back"])
        self.settle()
        self.assertEqual(self.there.received, b"before, after")
        self.assertEqual(self.here.received, b"and back")

    def test_otherWayRound(self) -> None:
        """
        The side that opened the stream can be TLS's server.
        """
        self.here.stream.startTLS(self.serverOptions, normal=False)
        self.there.stream.startTLS(self.clientOptions, normal=False)
        self.here.stream.write(b"hello")
        self.settle()
        self.assertEqual(self.there.received, b"hello")

    def test_loseConnection(self) -> None:
        """
        TLS is finished, then the stream closed, and both sides see an orderly
        end once.
        """
        self.startTLS()
        self.here.stream.write(bytes(100000))
        self.here.stream.loseConnection()
        self.here.stream.write(b"too late")
        self.settle()
        self.assertEqual(len(self.there.received), 100000)
        for side in (self.here, self.there):
            self.assertEqual(side.events.count("lost"), 1)
        self.here.stream.write(b"much too late")
        self.here.stream.writeSequence([b"much too late"])
        self.here.stream.loseConnection()
        self.settle()
        self.assertEqual(self.pair.client.streamCount, 0)
        self.assertEqual(self.pair.server.streamCount, 0)

    def test_ordinaryEnd(self) -> None:
        """
        Both sides see an orderly end, also the side whose answer to the last data
        comes too late.
        """
        self.startTLS()
        self.there.hooks["data"] = lambda there: there.transport.write(b"too late")
        self.here.stream.write(b"bye")
        self.here.stream.loseConnection()
        self.settle()
        for side in (self.here, self.there):
            self.assertIsInstance(side.reason, ConnectionDone)

    def test_smallWrites(self) -> None:
        """
        Small writes are put together: each record of TLS has some 22 bytes of its own.
        """
        self.startTLS()
        before = self.pair.client.bytesSent
        for _ in range(1000):
            self.here.stream.write(b"0123456789")
        self.settle()
        self.assertEqual(self.there.received, b"0123456789" * 1000)
        self.assertLess(self.pair.client.bytesSent - before, 11000)

    def test_nextTurn(self) -> None:
        """
        What is written is sent in the next turn of the reactor, not in the one after
        that.
        """
        self.startTLS()
        client = self.pair.client
        sent = [client.bytesSent]
        self.here.stream.write(b"hello")
        self.pair.clock.callLater(0, lambda: sent.append(client.bytesSent))
        self.settle()
        self.assertGreater(sent[1], sent[0])

    def test_abort(self) -> None:
        """
        A stream that is aborted in the turn of its last write is gone, and sends no
        part of that.
        """
        self.startTLS()
        self.here.stream.write(b"hello")
        self.here.stream.abortConnection()
        self.settle()
        self.assertEqual(self.there.received, b"")
        self.assertEqual(self.here.events.count("lost"), 1)

    def test_loseWriteConnection(self) -> None:
        """
        What was written before the end of the writing half arrives.
        """
        self.startTLS()
        self.here.stream.write(b"all of it")
        self.here.stream.loseWriteConnection()
        self.settle()
        self.assertEqual(self.there.received, b"all of it")
        self.assertEqual(self.there.events.count("lost"), 1)

    def test_muxCloses(self) -> None:
        """
        Closing the mux ends such a stream, too.  What was written before arrives, and
        for the peer's TLS the end is an orderly one.
        """
        self.startTLS()
        self.here.stream.write(b"the last")
        closed = self.pair.client.close()
        self.settle()
        self.assertIsInstance(self.successResultOf(closed), ConnectionClosed)
        self.assertEqual(self.there.received, b"the last")
        self.assertEqual(self.there.events.count("lost"), 1)
        self.assertIsInstance(self.there.reason, ConnectionDone)

    def test_producer(self) -> None:
        """
        A producer, whether it was registered before or after, is paused and
        resumed.
        """
        producer = PushProducer()
        self.here.stream.registerProducer(producer, True)
        self.startTLS()
        self.there.stream.pauseProducing()
        while "pause" not in producer.calls:
            self.here.stream.write(bytes(HIGH_WATER))
            self.settle()
        self.there.stream.resumeProducing()
        self.settle()
        self.assertEqual(producer.calls, ["pause", "resume"])
        self.here.stream.unregisterProducer()
        self.here.stream.registerProducer(producer, True)
        self.here.stream.unregisterProducer()

    def test_twice(self) -> None:
        """
        TLS is started once.
        """
        self.startTLS()
        self.assertRaises(RuntimeError, self.here.stream.startTLS, self.clientOptions)

    def test_untrusted(self) -> None:
        """
        A certificate that is not trusted ends the stream, and not the mux.
        """
        self.there.stream.startTLS(self.serverOptions)
        self.here.stream.startTLS(
            optionsForClientTLS("another.test", CERTIFICATE)  # type: ignore[arg-type]
        )
        self.here.stream.write(b"secret")
        self.settle()
        self.assertEqual(self.here.events.count("lost"), 1)
        self.assertEqual(self.there.received, b"")
        self.assertTrue(self.pair.client.canOpen)
        self.flushLoggedErrors()

    def test_sameLayout(self) -> None:
        """
        Streams that start TLS are no larger than others.
        """
        self.assertFalse(hasattr(self.here.stream, "__dict__"))
        self.assertIsInstance(self.here.stream, Stream)
        self.startTLS()
        self.assertFalse(hasattr(self.here.stream, "__dict__"))
