"""
Tests for L{gomux._mux.protocol}: frames that end a mux, and frames without effect.
"""

from __future__ import annotations

from twisted.logger import LogLevel, capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from gomux._wire.frame import HELLO_ID, HELLO_SIZE, Flag
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
    Frames that end a mux at once.
    """

    def check(self, rig: Rig, kind: type[GomuxError]) -> None:
        """
        Check that the mux ended with this kind of reason, and dropped the carrier.
        """
        self.assertIsInstance(rig.reason(), kind)
        self.assertTrue(rig.carrier.disconnected)
        self.assertNotIsInstance(rig.peer.lost, type(None))
        self.assertEqual(rig.mux.streamCount, 0)

    def test_openAfterwards(self) -> None:
        """
        After a violation C{openStream} fails, even before the carrier is gone.
        """
        rig = Rig()
        rig.mux.dataReceived(bytes(52))
        self.failureResultOf(rig.mux.openStream(Recorders()), OpenStreamError)
        self.check(rig, AuthenticationFailed)

    def test_openTwice(self) -> None:
        """
        OpenStream for a stream that is already open ends the mux.
        """
        rig = Rig()
        recorder = rig.opened(b"data")
        rig.send(0, Flag.OPEN_STREAM)
        self.check(rig, ProtocolViolation)
        self.assertEqual(recorder.received, b"data")

    def test_openOurs(self) -> None:
        """
        OpenStream with an ID that belongs to this side, as in a reflected frame, ends
        the mux.
        """
        for isClient in (False, True):
            rig = Rig(isClient=isClient)
            rig.send(int(not isClient), Flag.OPEN_STREAM)
            self.check(rig, ProtocolViolation)

    def test_tooLong(self) -> None:
        """
        A length above 131072 ends the mux, whatever the flag of the frame.
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
        Bytes that are not a frame end the mux, and get no answer.
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
        A peer with another key gets no answer.
        """
        rig = Rig(psk="another key", greet=True)
        rig.send(0, Flag.OPEN_STREAM)
        self.check(rig, AuthenticationFailed)
        self.assertEqual(rig.peer.bytesReceived, 0)
        self.assertEqual(rig.streams.made, [])

    def test_clientWrongKey(self) -> None:
        """
        If the peer ends the carrier before it has shown that it holds the key, the
        client's error names a wrong key as a possible cause.
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
        If the carrier fails with an error of its own, as TLS can, the reason of the mux
        includes that error.
        """
        for rig in (Rig(isClient=True), StrictRig(isClient=True, up=False)):
            rig.carrier.fail(ZeroDivisionError("certificate verify failed"))
            self.assertIn("own error: certificate verify failed", str(rig.reason()))

    def test_truncatedLater(self) -> None:
        """
        If the carrier ends after the peer has shown that it holds the key, the error
        does not mention a wrong key.
        """
        rig = Rig(isClient=True)
        rig.send(0, Flag.KEEPALIVE)
        rig.peerCarrier.loseConnection()
        self.assertNotIn("wrong pre-shared key", str(rig.reason()))

    def test_flippedBits(self) -> None:
        """
        A frame with any bit flipped ends the mux, and nothing of it is delivered.  If
        the flipped bit makes the frame longer, the mux waits for the rest, which never
        arrives.
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
        A frame of any kind that is cut off at any byte has no effect, and the mux ends
        with L{Truncated}.
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
        Genuine frames that precede a forged frame take effect, once.
        """
        rig = Rig()
        recorder = rig.opened()
        rig.sendRaw(rig.peer.seal(0, Flag.DATA, b"genuine") + bytes(200))
        self.check(rig, AuthenticationFailed)
        self.assertEqual(recorder.received, b"genuine")

    def test_nothingAfterEnd(self) -> None:
        """
        Frames behind CloseMux and bytes after C{connectionLost} have no effect.
        (Trap 7 in docs/design.rst.)
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
        An application that aborts the mux inside C{dataReceived} gets no more data.
        (Trap 7 in docs/design.rst.)
        """
        rig = Rig(data=lambda recorder: rig.mux.abort())
        recorder = rig.opened()
        rig.sendMany((0, Flag.DATA, b"one"), (0, Flag.DATA, b"two"))
        self.assertEqual(recorder.received, b"one")
        self.assertNotIn("nested!", recorder.events)


class IgnoredTests(SynchronousTestCase):
    """
    Frames without effect.
    """

    def test_ignored(self) -> None:
        """
        In compatible mode, Keepalives, unknown frames, frames for streams that were
        never opened, empty data and empty credit are ignored, and so are lengths in
        frames that should have none.
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
        A hello from a peer in strict mode is logged by a mux in compatible mode.
        """
        with capturedLogs() as logs:
            rig = Rig()
            rig.send(HELLO_ID, Flag.DATA, bytes(HELLO_SIZE))
        warnings = [log for log in logs if log["log_level"] is LogLevel.warn]
        self.assertEqual(len(warnings), 1)
        self.assertIn("strict mode", formatEvent(warnings[0]))
        self.assertIsNone(rig.reason())
