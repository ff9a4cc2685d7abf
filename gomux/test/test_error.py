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
    error.ProtocolViolation,
    error.LimitExceeded,
    error.WriteStalled,
    error.NonceExhausted,
]


class ErrorTests(SynchronousTestCase):
    """
    The errors, and what Twisted's own protocols make of them.
    """

    def test_all(self) -> None:
        """
        Everything in the module that is an error is a L{error.GomuxError}.
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
        The orderly ends are L{ConnectionDone} and nothing else is.
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
        Each end says what happened, and the details where it has some.
        """
        for kind in ORDERLY + ABRUPT:
            plain = str(kind())
            self.assertNotIn("onnection was closed cleanly", plain)
            self.assertIn("details", str(kind("details")))
            self.assertTrue(str(kind("details")).startswith(plain.rstrip(".")))
