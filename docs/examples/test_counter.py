from twisted.internet.error import ConnectionDone
from twisted.internet.protocol import Factory, Protocol
from twisted.trial.unittest import SynchronousTestCase

from gomux.testing import MuxPair


class Counter(Protocol):
    """The protocol under test: it answers with the number of bytes so far."""

    total = 0

    def dataReceived(self, data):
        self.total += len(data)
        self.transport.write(b"%d\n" % self.total)


class Client(Protocol):
    received = b""
    reason = None

    def dataReceived(self, data):
        self.received += data

    def connectionLost(self, reason):
        self.reason = reason


class CounterTests(SynchronousTestCase):
    def setUp(self):
        self.pair = MuxPair(Factory.forProtocol(Counter), latency=0.05)
        opened = self.pair.client.openStream(Factory.forProtocol(Client))
        self.client = self.successResultOf(opened)

    def test_counts(self):
        """
        It counts the bytes of its own stream.
        """
        self.client.transport.write(b"abc")
        self.pair.flush()
        self.client.transport.write(b"de")
        self.pair.flush()
        self.assertEqual(self.client.received, b"3\n5\n")

    def test_late(self):
        """
        The answer takes a round trip.
        """
        self.client.transport.write(b"abc")
        self.pair.advance(0.09)
        self.assertEqual(self.client.received, b"")
        self.pair.advance(0.02)
        self.assertEqual(self.client.received, b"3\n")

    def test_lost(self):
        """
        A lost network does not look like an orderly end.
        """
        self.pair.loseCarrier(reset=True)
        self.pair.flush()
        self.assertIsNone(self.client.reason.check(ConnectionDone))
