"""
Tests for L{gomux._wire.keysearch}, L{gomux._wire.crypto} and
L{gomux._mux.scheduler}: the greeting of a mux in compatible mode, and the nonces of a
peer that greets.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from gomux import MuxFactory
from gomux._wire.crypto import LAST_COUNTER, Sealer, deriveKey
from gomux._wire.frame import BOUND, Flag
from gomux._wire.keyring import Keyring
from gomux.error import OutOfSequence, PeerClosedConnection
from gomux.test.support import greetingvectors
from gomux.test.support.helpers import Parts, Recorders, Rig, note
from gomux.testing import PSK

VECTORS = Path(__file__).parent.parent / "vectors" / "greeting.json"
GREETING = (0, Flag.KEEPALIVE, BOUND, b"")


def greetingRig(isClient: bool = False, psk: str | Keyring = PSK) -> Rig:
    """
    @return: a rig whose mux greets.
    """
    clock, streams = Clock(), Recorders()
    factory = MuxFactory(psk, isClient, streams, clock=clock)
    rig = Rig(isClient=isClient, factory=factory, clock=clock)
    rig.streams = streams
    return rig


class SentTests(SynchronousTestCase):
    """
    The greeting that a mux sends.
    """

    def test_client(self) -> None:
        """
        A client sends its greeting at once, and no other.
        """
        rig = greetingRig(isClient=True)
        self.assertEqual(rig.peer.frames, [GREETING])
        rig.send(0, Flag.KEEPALIVE, BOUND)
        rig.open()
        self.assertEqual(rig.sent(), [(0, Flag.OPEN_STREAM, 0)])
        self.assertEqual(rig.peer.frames, [])

    def test_server(self) -> None:
        """
        A server sends nothing before the first frame of the client.  Then it sends its
        greeting, whatever that frame was, and no other.
        """
        for first in (
            (0, Flag.KEEPALIVE, BOUND),
            (0, Flag.KEEPALIVE, 0),
            (0, Flag.OPEN_STREAM, 0),
        ):
            for psk in (PSK, Keyring({"alice": "a" * 40, "bob": PSK})):
                rig = greetingRig(psk=psk)
                self.assertEqual(rig.peer.bytesReceived, 0)
                rig.send(*first)
                self.assertEqual(rig.peer.frames, [GREETING])
                rig.open().stream.write(b"x")
                rig.send(2, Flag.OPEN_STREAM)
                rig.run()
                flags = [frame[1] for frame in rig.peer.frames]
                self.assertEqual(flags.count(Flag.KEEPALIVE), 1)

    def test_serverOpensFirst(self) -> None:
        """
        If a server has to send something before the client's first frame, it sends its
        greeting ahead of that.
        """
        rig = greetingRig()
        rig.open()
        rig.run()
        flags = [frame[1] for frame in rig.peer.frames]
        self.assertEqual(rig.peer.frames[0], GREETING)
        self.assertEqual(flags, [Flag.KEEPALIVE, Flag.OPEN_STREAM])
        rig.send(0, Flag.KEEPALIVE)
        self.assertEqual(len(rig.peer.frames), 2)

    def test_off(self) -> None:
        """
        With C{greet=False}, neither side sends a greeting.
        """
        for isClient in (True, False):
            rig = Rig(isClient=isClient)
            rig.send(0, Flag.KEEPALIVE, BOUND)
            self.assertEqual(rig.peer.bytesReceived, 0)

    def test_nonces(self) -> None:
        """
        All frames have the nonce prefix of the greeting, and consecutive counters.
        """
        rig = greetingRig(isClient=True)
        sent = note(rig)
        first = Parts(rig.mux).scheduler._sealer.prefix
        for _ in range(10):
            rig.open().stream.write(b"x")
            rig.run()
        self.assertEqual(len(sent), 20)
        for count, frame in enumerate(sent, 1):
            self.assertEqual(frame[12:36], first + count.to_bytes(8, "little"))


class BoundTests(SynchronousTestCase):
    """
    The nonces of a peer that has announced that they are bound.
    """

    def greeted(self, isClient: bool, greet: bool) -> Rig:
        """
        @return: a rig whose peer has greeted and opened a stream.
        """
        rig = Rig(isClient=isClient, greet=greet)
        rig.send(0, Flag.KEEPALIVE, BOUND)
        self.recorder = rig.opened(b"one")
        return rig

    def rigs(self) -> list[Rig]:
        """
        @return: a rig for each role, with a mux that greets and one that does not.
        """
        return [
            self.greeted(isClient, greet)
            for isClient in (True, False)
            for greet in (True, False)
        ]

    def ended(self, rig: Rig) -> None:
        self.assertIsInstance(rig.reason(), OutOfSequence)
        self.assertEqual(bytes(rig.streams.made[0].received), b"one")

    def test_inOrder(self) -> None:
        """
        Frames in order have their effect.
        """
        for rig in self.rigs():
            rig.sendMany(*[(int(rig.isClient), Flag.DATA, b"x")] * 5)
            self.assertIsNone(rig.reason())
            self.assertEqual(bytes(rig.streams.made[0].received), b"onexxxxx")

    def test_anyStart(self) -> None:
        """
        The counter of the greeting need not be 0.
        """
        rig = Rig()
        rig.peer.sealer = Sealer(deriveKey(PSK), counter=2**40)
        rig.send(0, Flag.KEEPALIVE, BOUND)
        rig.opened(b"one")
        self.assertIsNone(rig.reason())
        rig.peer.seal(0, Flag.KEEPALIVE)
        rig.send(0, Flag.KEEPALIVE)
        self.ended(rig)

    def test_lastStart(self) -> None:
        """
        Nothing can follow a greeting with the last counter.
        """
        rig = Rig()
        sealer = Sealer(deriveKey(PSK), counter=LAST_COUNTER)
        sealer._end += 1
        header, tag = sealer.seal(0, BOUND, Flag.KEEPALIVE)
        rig.sendRaw(header + tag)
        self.assertIsNone(rig.reason())
        rig.sendRaw(header + tag)
        self.assertIsInstance(rig.reason(), OutOfSequence)

    def test_replayed(self) -> None:
        """
        A frame that comes a second time ends the mux.
        """
        for rig in self.rigs():
            frame = rig.peer.seal(int(rig.isClient), Flag.WINDOW_UPDATE, 5)
            rig.sendRaw(frame)
            self.assertIsNone(rig.reason())
            rig.sendRaw(frame)
            self.ended(rig)

    def test_dropped(self) -> None:
        """
        A frame that is missing ends the mux.
        """
        for rig in self.rigs():
            rig.peer.seal(int(rig.isClient), Flag.WINDOW_UPDATE, 5)
            rig.send(int(rig.isClient), Flag.DATA, b"two")
            self.ended(rig)

    def test_firstDropped(self) -> None:
        """
        A frame that is missing right after the greeting ends the mux.
        """
        rig = Rig()
        rig.send(0, Flag.KEEPALIVE, BOUND)
        rig.peer.seal(0, Flag.OPEN_STREAM)
        rig.send(2, Flag.OPEN_STREAM)
        self.assertIsInstance(rig.reason(), OutOfSequence)
        self.assertEqual(rig.streams.made, [])

    def test_swapped(self) -> None:
        """
        Frames in another order end the mux.
        """
        for rig in self.rigs():
            two, three = (
                rig.peer.seal(int(rig.isClient), Flag.DATA, data)
                for data in (b"two", b"three")
            )
            rig.sendRaw(three + two)
            self.ended(rig)

    def test_spliced(self) -> None:
        """
        A frame of another mux, under the same key, ends the mux.
        """
        for rig in self.rigs():
            other = Sealer(deriveKey(PSK), counter=rig.peer.sealer.last + 1)
            rig.sendRaw(b"".join(other.seal(0, 0, Flag.CLOSE_STREAM)))
            self.ended(rig)

    def test_severalKeys(self) -> None:
        """
        The nonces of a peer are bound on a server with several keys too.
        """
        rig = greetingRig(psk=Keyring({"alice": "a" * 40, "bob": PSK}))
        rig.send(0, Flag.KEEPALIVE, BOUND)
        rig.opened(b"one")
        rig.peer.seal(0, Flag.KEEPALIVE)
        rig.send(0, Flag.DATA, b"two")
        self.ended(rig)

    def test_notAnnounced(self) -> None:
        """
        The nonces of a peer whose first frame announces nothing are free.  A later
        greeting changes nothing.
        """
        for streamID, flag, length in (
            (0, Flag.KEEPALIVE, 0),
            (0, Flag.KEEPALIVE, 2),
            (0, Flag.KEEPALIVE, 65536),
            (5, Flag.KEEPALIVE, BOUND),
            (0, Flag.CLOSE_STREAM, BOUND),
        ):
            for isClient in (True, False):
                rig = Rig(isClient=isClient, greet=True)
                rig.send(streamID, flag, length)
                rig.send(0, Flag.KEEPALIVE, BOUND)
                streamID = 2 + isClient
                rig.send(streamID, Flag.OPEN_STREAM)
                frame = rig.peer.seal(streamID, Flag.DATA, b"x")
                rig.peer.sealer = Sealer(deriveKey(PSK))
                rig.sendRaw(frame + frame)
                self.assertIsNone(rig.reason())
                self.assertEqual(bytes(rig.streams.made[-1].received), b"xx")

    def test_otherBits(self) -> None:
        """
        Bits that this version does not know do not matter.
        """
        rig = Rig()
        rig.send(0, Flag.KEEPALIVE, 0xFFFF)
        rig.opened(b"one")
        rig.peer.seal(0, Flag.KEEPALIVE)
        rig.send(0, Flag.DATA, b"two")
        self.ended(rig)


class VectorTests(SynchronousTestCase):
    """
    The frames of C{vectors/greeting.json}.
    """

    def setUp(self) -> None:
        self.vectors = json.loads(VECTORS.read_text())

    def test_document(self) -> None:
        """
        The file has the frames that docs/protocol.rst describes.
        """
        self.assertEqual(greetingvectors.vectors(), self.vectors)

    def test_frames(self) -> None:
        """
        A mux in either role that gets the frames of the other side sends those of its
        own.
        """
        for side, isClient in (("client", True), ("server", False)):
            own = [
                entry["frame"]
                for entry in self.vectors["frames"]
                if entry["from"] == side
            ]
            # A client has sent its greeting before the peer looks.
            self.assertEqual(self.played(side, isClient), own[isClient:])

    def played(self, side: str, isClient: bool) -> list[str]:
        """
        @return: the frames that a mux sends.
        """
        prefix = bytes.fromhex(self.vectors[f"{side}Prefix"])
        self.patch(os, "urandom", lambda size: prefix)
        clock, streams = Clock(), Recorders()
        psk = bytes.fromhex(self.vectors["psk"]).decode()
        factory = MuxFactory(psk, isClient, Recorders(), clock=clock)
        rig = Rig(isClient=isClient, factory=factory, clock=clock, psk=psk)
        sent = note(rig)
        for entry in self.vectors["frames"]:
            about = entry["about"]
            if entry["from"] != side:
                rig.sendRaw(bytes.fromhex(entry["frame"]))
            elif about.startswith("OpenStream"):
                rig.mux.openStream(streams)
            elif about.endswith("data on it"):
                streams.made[0].stream.write(b"hello")
            elif about.startswith("ping"):
                clock.advance(5)
            elif about == "CloseMux":
                Parts(rig.mux).scheduler.control(0, Flag.CLOSE_MUX)
            rig.run()
        return [frame.hex() for frame in sent]


class LengthTests(SynchronousTestCase):
    """
    Lengths where the frame has no payload.
    """

    def test_openStream(self) -> None:
        """
        A stream whose OpenStream has a length of 1 begins with a request.  A stream
        with a greater length is refused only if the peer has announced that it knows
        what a length means.
        """
        for bits in (0, BOUND):
            rig = Rig()
            rig.send(0, Flag.KEEPALIVE, bits)
            for streamID, length in enumerate((1, 2, 65536)):
                rig.send(2 * streamID, Flag.OPEN_STREAM, length)
                refused = bits == BOUND and length > 1
                flags = [frame[1] for frame in rig.sent()]
                refusal = [Flag.WINDOW_UPDATE, Flag.CLOSE_STREAM]
                self.assertEqual(flags, refusal if refused else [])
            self.assertEqual(len(rig.streams.made), 0 if bits else 2)
            self.assertEqual(rig.mux.streamCount, 1 if bits else 3)
            rig.send(6, Flag.OPEN_STREAM)
            self.assertEqual(rig.sent(), [])
            self.assertIsNone(rig.reason())

    def test_others(self) -> None:
        """
        On any other frame a length means nothing, whatever the peer has announced.
        """
        for bits in (0, BOUND):
            rig = Rig()
            rig.send(0, Flag.KEEPALIVE, bits)
            recorder = rig.opened(b"x")
            rig.send(0, Flag.KEEPALIVE, 5)
            rig.send(0, Flag.CLOSE_WRITE, 5)
            rig.send(0, Flag.CLOSE_READ, 5)
            rig.send(0, Flag.CLOSE_STREAM, 5)
            self.assertIsNone(rig.reason())
            self.assertEqual(recorder.events, ["made", "data", "lost"])
            rig.send(0, Flag.CLOSE_MUX, 5)
            self.assertIsInstance(rig.reason(), PeerClosedConnection)


class ReflectedTests(SynchronousTestCase):
    """
    Frames that come back to the side that has sent them.
    """

    def reflected(self, rig: Rig, length: int, flag: int) -> None:
        """
        Send a frame back to the mux that has sealed it.
        """
        sealer = Parts(rig.mux).scheduler._sealer
        own = Sealer(deriveKey(PSK), sealer.prefix, sealer.last + 1)
        rig.sendRaw(b"".join(own.seal(0, length, flag)))
        reason = rig.reason()
        self.assertIsInstance(reason, OutOfSequence)

    def test_first(self) -> None:
        """
        A mux that gets its own greeting back ends.
        """
        for greet in (True, False):
            rig = Rig(isClient=True, greet=greet)
            self.reflected(rig, BOUND, Flag.KEEPALIVE)
            self.assertIn("came back", str(rig.mux.reason))
            self.assertFalse(rig.mux.authenticated)

    def test_later(self) -> None:
        """
        A mux that gets any other frame of its own back ends, whether the peer has
        greeted or not, also with several keys.
        """
        for length in (0, BOUND):
            for psk in (PSK, Keyring({"alice": "a" * 40, "bob": PSK})):
                rig = greetingRig(psk=psk)
                rig.send(0, Flag.KEEPALIVE, length)
                self.reflected(rig, 0, Flag.OPEN_STREAM)
                self.assertEqual(rig.streams.made, [])
