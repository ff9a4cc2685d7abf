"""
Tests for L{gomux._mux.protocol}: what ends a mux, and what has no effect.
"""

from __future__ import annotations

from twisted.logger import LogLevel, capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from gomux._wire.frame import HELLO_ID, Flag
from gomux.error import (
    AuthenticationFailed,
    GomuxError,
    OpenStreamError,
    PeerClosedConnection,
    ProtocolViolation,
    Truncated,
)
from gomux.test.support.helpers import Recorders, Rig
from gomux.test.support.strictrig import StrictRig
from gomux.testing import MuxPair


class ViolationTests(SynchronousTestCase):
    """
    What ends the mux at once.
    """

    def check(self, rig: Rig, kind: type[GomuxError]) -> None:
        """
        The mux ended for a reason of some kind; the carrier was reset.
        """
        self.assertIsInstance(rig.reason(), kind)
        self.assertTrue(rig.carrier.disconnected)
        self.assertNotIsInstance(rig.peer.lost, type(None))
        self.assertEqual(rig.mux.streamCount, 0)

    def test_openAfterwards(self) -> None:
        """
        After that no stream can be opened, though the carrier is yet to go.
        """
        rig = Rig()
        rig.mux.dataReceived(bytes(52))
        self.failureResultOf(rig.mux.openStream(Recorders()), OpenStreamError)
        self.check(rig, AuthenticationFailed)

    def test_openTwice(self) -> None:
        """
        OpenStream for a stream that is open.
        """
        rig = Rig()
        recorder = rig.opened(b"data")
        rig.send(0, Flag.OPEN_STREAM)
        self.check(rig, ProtocolViolation)
        self.assertEqual(recorder.received, b"data")

    def test_openOurs(self) -> None:
        """
        OpenStream for an ID of our parity, as in a reflected frame.
        """
        for isClient in (False, True):
            rig = Rig(isClient=isClient)
            rig.send(int(not isClient), Flag.OPEN_STREAM)
            self.check(rig, ProtocolViolation)

    def test_tooLong(self) -> None:
        """
        A length above 65536, and above 131072 for credit, in any frame.
        """
        for flag in (*Flag, 8, 2**32 - 1):
            for length in (131073, 2**32 - 1):
                rig = Rig()
                rig.opened()
                rig.send(0, flag, length)
                self.check(rig, ProtocolViolation)

    def test_largeCredit(self) -> None:
        """
        Credit of up to 131072 bytes in one frame is accepted.
        """
        rig = Rig()
        recorder = rig.opened()
        rig.send(0, Flag.WINDOW_UPDATE, 131072)
        recorder.stream.write(bytes(300000))
        self.assertEqual(sum(frame[2] for frame in rig.sent()), 262144)

    def test_garbage(self) -> None:
        """
        What is no frame ends the mux, and nothing is answered.
        """
        for data in (
            b"GET / HTTP/1.1\r\nHost: example.org\r\nUser-Agent: nobody\r\n\r\n",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500),
            bytes(36 + 16),
            b"\xff" * 100,
        ):
            rig = Rig(greet=True)
            rig.sendRaw(data)
            self.check(rig, GomuxError)
            self.assertEqual(rig.peer.bytesReceived, 0)

    def test_wrongKey(self) -> None:
        """
        A peer with another key is answered nothing.
        """
        rig = Rig(psk="another key", greet=True)
        rig.send(0, Flag.OPEN_STREAM)
        self.check(rig, AuthenticationFailed)
        self.assertEqual(rig.peer.bytesReceived, 0)
        self.assertEqual(rig.streams.made, [])

    def test_clientWrongKey(self) -> None:
        """
        A client whose peer ends the carrier before it has shown that it holds
        the key is told what may be wrong.
        """
        rig = Rig(isClient=True)
        rig.open()
        rig.peerCarrier.loseConnection()
        reason = rig.reason()
        self.assertIsInstance(reason, Truncated)
        self.assertIn("wrong pre-shared key", str(reason))
        self.assertNotIn("own error", str(reason))

    def test_carrierError(self) -> None:
        """
        Where the carrier has an error of its own, as TLS may, that is told too.
        """
        for rig in (Rig(isClient=True), StrictRig(isClient=True, up=False)):
            rig.carrier.fail(ZeroDivisionError("certificate verify failed"))
            self.assertIn("own error: certificate verify failed", str(rig.reason()))

    def test_truncatedLater(self) -> None:
        """
        One whose peer had shown it is not.
        """
        rig = Rig(isClient=True)
        rig.send(0, Flag.KEEPALIVE)
        rig.peerCarrier.loseConnection()
        self.assertNotIn("wrong pre-shared key", str(rig.reason()))

    def test_flippedBits(self) -> None:
        """
        A change of any bit of a frame ends the mux, unless it makes it longer:
        then the rest does not come. Nothing of it is delivered.
        """
        rig = Rig()
        frame = rig.peer.seal(0, Flag.DATA, b"payload")
        for bit in range(8 * len(frame)):
            rig = Rig()
            recorder = rig.opened()
            changed = bytearray(rig.peer.seal(0, Flag.DATA, b"payload"))
            changed[bit // 8] ^= 1 << bit % 8
            rig.sendRaw(bytes(changed))
            if 32 <= bit < 49 and rig.reason() is None:
                rig.peerCarrier.abortConnection()
            self.check(rig, GomuxError)
            self.assertEqual(recorder.received, b"")

    def test_truncatedAnywhere(self) -> None:
        """
        Wherever a frame of any kind is cut off, nothing of it is delivered.
        """
        for flag in Flag:
            what = b"payload" if flag == Flag.DATA else 0
            for size in range(52):
                rig = Rig()
                recorder = rig.opened()
                rig.sendRaw(rig.peer.seal(0, flag, what)[:size])
                rig.peerCarrier.loseConnection()
                self.assertIsInstance(rig.reason(), Truncated)
                self.assertEqual(recorder.events, ["made", "lost"])

    def test_unauthenticatedAhead(self) -> None:
        """
        Genuine frames ahead of one that is not take effect, once.
        """
        rig = Rig()
        recorder = rig.opened()
        rig.sendRaw(rig.peer.seal(0, Flag.DATA, b"genuine") + bytes(200))
        self.check(rig, AuthenticationFailed)
        self.assertEqual(recorder.received, b"genuine")

    def test_nothingAfterEnd(self) -> None:
        """
        Trap 7: frames behind the one that ended the mux, in the same piece or
        later, and bytes after C{connectionLost}, have no effect.
        """
        rig = Rig()
        recorder = rig.opened()
        rig.sendMany((0, Flag.CLOSE_MUX, 0), (0, Flag.DATA, b"late"))
        rig.mux.dataReceived(rig.peer.seal(0, Flag.DATA, b"later"))
        self.assertIsInstance(rig.reason(), PeerClosedConnection)
        rig.mux.dataReceived(rig.peer.seal(2, Flag.OPEN_STREAM))
        rig.run()
        self.assertEqual(recorder.received, b"")
        self.assertEqual(len(rig.streams.made), 1)

    def test_applicationAborts(self) -> None:
        """
        Trap 7: an application that aborts the mux inside C{dataReceived} gets
        no more data.
        """
        rig = Rig(data=lambda recorder: rig.mux.abort())
        recorder = rig.opened()
        rig.sendMany((0, Flag.DATA, b"one"), (0, Flag.DATA, b"two"))
        self.assertEqual(recorder.received, b"one")
        self.assertNotIn("nested!", recorder.events)


class IgnoredTests(SynchronousTestCase):
    """
    What has no effect.
    """

    def test_ignored(self) -> None:
        """
        Keepalives, unknown frames, frames for streams that were never opened,
        empty data, empty credit, and lengths where there should be none are
        ignored.
        """
        rig = Rig()
        recorder = rig.opened()
        for frame in (
            (0, Flag.KEEPALIVE, 0),
            (0, 8, 0),
            (0, 2**32 - 1, 0),
            (100, Flag.DATA, b"never opened"),
            (101, Flag.WINDOW_UPDATE, 5),
            (1, Flag.CLOSE_STREAM, 0),
            (1, Flag.CLOSE_READ, 0),
            (1, Flag.CLOSE_WRITE, 0),
            (0, Flag.DATA, b""),
            (0, Flag.WINDOW_UPDATE, 0),
            (0, Flag.KEEPALIVE, 1000),
        ):
            rig.send(*frame)
        self.assertIsNone(rig.reason())
        self.assertEqual(rig.sent(), [])
        self.assertEqual(recorder.events, ["made"])
        rig.send(2, Flag.OPEN_STREAM, 1000)
        self.assertEqual(len(rig.streams.made), 2)

    def test_greeting(self) -> None:
        """
        A client that greets sends its greeting at once; a server that does answers
        with its own, so that each knows early that the other holds the key.
        """
        for greet in (True, False):
            pair = MuxPair(greet=greet)
            pair.flush()
            self.assertEqual(pair.client.authenticated, greet)
            self.assertEqual(pair.server.authenticated, greet)

    def test_strictPeer(self) -> None:
        """
        A peer that is in strict mode, which this side is not, is logged once.
        """
        with capturedLogs() as logs:
            rig = Rig()
            rig.send(HELLO_ID, Flag.KEEPALIVE)
            rig.send(HELLO_ID, Flag.KEEPALIVE)
        warnings = [log for log in logs if log["log_level"] is LogLevel.warn]
        self.assertEqual(len(warnings), 1)
        self.assertIn("strict mode", formatEvent(warnings[0]))
        self.assertIsNone(rig.reason())
