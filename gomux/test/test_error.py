"""
Tests for L{gomux.error}.
"""

from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.trial.unittest import SynchronousTestCase

from gomux import error

ORDERLY = [
    error.StreamClosed,
    error.PeerClosedStream,
    error.WriteClosed,
    error.ConnectionClosed,
    error.PeerClosedConnection,
]
ABRUPT = [
    error.PeerAbortedStream,
    error.Truncated,
    error.AuthenticationFailed,
    error.OutOfSequence,
    error.HandshakeFailed,
    error.KeyRevoked,
    error.ServiceWithdrawn,
    error.ProtocolViolation,
    error.LimitExceeded,
    error.OutputExceeded,
    error.BuffersFull,
    error.WriteStalled,
    error.NonceExhausted,
]


class ErrorTests(SynchronousTestCase):
    """
    How the errors are related to Twisted's, and their texts
    """

    def test_all(self) -> None:
        """
        Every error of the module is a L{error.GomuxError}.
        """
        found = [
            value
            for value in vars(error).values()
            if isinstance(value, type) and value.__module__ == error.__name__
        ]
        self.assertGreater(len(found), 10)
        for kind in found:
            self.assertTrue(issubclass(kind, error.GomuxError), kind)

    def test_orderly(self) -> None:
        """
        Exactly the orderly ends are L{ConnectionDone}.
        """
        for kind in ORDERLY:
            self.assertTrue(issubclass(kind, ConnectionDone), kind)
            self.assertFalse(issubclass(kind, ConnectionLost), kind)

    def test_abrupt(self) -> None:
        """
        The other ends are L{ConnectionLost}.
        """
        for kind in ABRUPT:
            self.assertTrue(issubclass(kind, ConnectionLost), kind)
            self.assertFalse(issubclass(kind, ConnectionDone), kind)

    def test_text(self) -> None:
        """
        The text of each error says what happened, with details if it has any.
        """
        for kind in ORDERLY + ABRUPT:
            plain = str(kind())
            self.assertNotIn("onnection was closed cleanly", plain)
            self.assertIn("details", str(kind("details")))
            self.assertTrue(str(kind("details")).startswith(plain.rstrip(".")))
