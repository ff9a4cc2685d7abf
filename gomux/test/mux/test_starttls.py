# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
Tests for L{gomux._mux.starttls}.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import ISSLTransport, ITLSTransport
from twisted.internet.ssl import optionsForClientTLS
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from gomux import Limits
from gomux._mux.buffers import STREAM_COST
from gomux._mux.sender import HIGH_WATER
from gomux._mux.starttls import TLS_COST
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
        # Each side of a handshake takes several turns of the reactor.
        for _ in range(10):
            self.pair.flush()

    def test_interfaces(self) -> None:
        """
        A stream can start TLS.  It then provides C{ISSLTransport}, and shows the peer's
        certificate.
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

    def test_counted(self) -> None:
        """
        Each TLS counts as memory of its mux until the end of the stream.
        """
        accounts = [
            end.stream.streams.account  # type: ignore[attr-defined]
            for end in (self.here, self.there)
        ]
        before = [account.used for account in accounts]
        self.startTLS()
        used = [account.used for account in accounts]
        self.assertEqual(used, [size + TLS_COST for size in before])
        for mux in (self.pair.client, self.pair.server):
            mux.checkInvariants()
        self.here.stream.loseConnection()
        self.settle()
        self.assertEqual(accounts[0].used, before[0] - STREAM_COST)
        self.assertEqual(accounts[1].used, before[1] - STREAM_COST)

    def test_data(self) -> None:
        """
        Data written before C{startTLS} arrives, and so does data written after it, in
        both directions.
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
        With C{normal=False}, the side that opened the stream is the server of TLS.
        """
        self.here.stream.startTLS(self.serverOptions, normal=False)
        self.there.stream.startTLS(self.clientOptions, normal=False)
        self.here.stream.write(b"hello")
        self.settle()
        self.assertEqual(self.there.received, b"hello")

    def test_loseConnection(self) -> None:
        """
        C{loseConnection} sends all output, ends TLS, then closes the stream.  Each side
        gets C{connectionLost} once.
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

    def test_maxOutput(self) -> None:
        """
        Output that waits for TLS's handshake is bounded by C{maxOutput} too.
        """
        self.pair = MuxPair(self.served, limits=Limits(maxOutput=1000000))
        self.pair.client.openStream(self.opened)
        self.pair.flush()
        here = self.opened.made[1]
        here.stream.startTLS(self.clientOptions)
        with capturedLogs() as events:
            for _ in range(6):
                here.stream.write(bytes(200000))
                self.pair.flush()
            self.assertIsNone(here.reason)
            here.stream.write(bytes(200000))
            self.pair.flush()
        # TLS does not pass on the stream's own reason.
        self.assertIsInstance(here.reason, ConnectionLost)
        [text] = [formatEvent(event) or "" for event in events]
        self.assertIn("its application went on writing", text)
        self.assertEqual(self.pair.client.streamCount, 0)

    def test_ordinaryEnd(self) -> None:
        """
        Both sides see an orderly end, even if one side has answered the last data too
        late.
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
        Small writes share a TLS record, because each record adds about 22 bytes.
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
        Written data is sent in the next turn of the reactor.
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
        A stream that is aborted in the turn of its last write sends nothing of that
        write.
        """
        self.startTLS()
        self.here.stream.write(b"hello")
        self.here.stream.abortConnection()
        self.settle()
        self.assertEqual(self.there.received, b"")
        self.assertEqual(self.here.events.count("lost"), 1)

    def test_loseWriteConnection(self) -> None:
        """
        Data written before C{loseWriteConnection} arrives.
        """
        self.startTLS()
        self.here.stream.write(b"all of it")
        self.here.stream.loseWriteConnection()
        self.settle()
        self.assertEqual(self.there.received, b"all of it")
        self.assertEqual(self.there.events.count("lost"), 1)

    def test_muxCloses(self) -> None:
        """
        C{close} of the mux sends the output of a stream with TLS and then ends it.  The
        peer's side sees an orderly end.
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
        A producer that was registered before C{startTLS} is still paused and resumed.
        A producer can also be registered afterwards.
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
        A second C{startTLS} raises L{RuntimeError}.
        """
        self.startTLS()
        self.assertRaises(RuntimeError, self.here.stream.startTLS, self.clientOptions)

    def test_untrusted(self) -> None:
        """
        An untrusted certificate ends the stream, but not the mux.
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
        A stream that has started TLS is still a L{Stream} without a C{__dict__}.
        """
        self.assertFalse(hasattr(self.here.stream, "__dict__"))
        self.assertIsInstance(self.here.stream, Stream)
        self.startTLS()
        self.assertFalse(hasattr(self.here.stream, "__dict__"))
