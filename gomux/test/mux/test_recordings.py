"""
Tests against recordings of the Go reference, which C{vectors/README.md}
describes.
"""

from __future__ import annotations

import json
from base64 import b64decode
from collections.abc import Callable, Iterator
from typing import Any
from unittest.mock import patch

from nacl.bindings import crypto_aead_xchacha20poly1305_ietf_encrypt
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from gomux import MuxFactory
from gomux._mux.scheduler import Scheduler
from gomux._wire.frame import Flag, Frame
from gomux._wire.replay import FirstFrames
from gomux._wire.window import ReceiveWindow
from gomux.error import AuthenticationFailed
from gomux.test.support.helpers import HalfRecorder, Recorder, Recorders, Rig
from gomux.test.support.recordings import (
    SIDES,
    VECTORS,
    Session,
    keyOf,
    parse,
    session,
    sessions,
)


class FrameTests(SynchronousTestCase):
    """
    The single frames in C{frames.jsonl}
    """

    def frames(self) -> Iterator[dict[str, Any]]:
        with (VECTORS / "frames.jsonl").open() as lines:
            for line in lines:
                yield json.loads(line)

    def test_open(self) -> None:
        """
        Every recorded frame decrypts to its recorded plaintext.
        """
        count = 0
        for frame in self.frames():
            self.assertEqual(keyOf(frame["psk"]).hex(), frame["key"])
            expected = (
                frame["id"],
                frame["length"],
                frame["flags"],
                b64decode(frame["plaintext"]),
            )
            self.assertEqual(
                parse(frame["psk"], [b64decode(frame["frame"])]), [expected]
            )
            count += 1
        self.assertEqual(count, 99)

    def test_sealed(self) -> None:
        """
        Sealing a recorded plaintext under the recorded nonce gives the recorded bytes.
        """
        for frame in self.frames():
            data = b64decode(frame["frame"])
            self.assertEqual(data[12:36].hex(), frame["nonce"])
            sealed = crypto_aead_xchacha20poly1305_ietf_encrypt(
                b64decode(frame["plaintext"]),
                data[:36],
                data[12:36],
                keyOf(frame["psk"]),
            )
            self.assertEqual(data[36:], sealed)


class CutTests(SynchronousTestCase):
    """
    Recorded sessions whose bytes arrive in pieces.
    """

    def test_everyCut(self) -> None:
        """
        Cut in two at any place, the bytes of each side give the same frames.
        """
        for recorded in sessions():
            for side in SIDES:
                data = recorded.bytesOf(side)
                expected = recorded.framesOf(side)
                # A short recording is cut at every byte.  A long one is cut around
                # the ends of its frames, and at some other places.
                step = 1 if len(data) < 1300 else len(data) // 150
                cuts = range(0, len(data) + 1, step)
                for cut in cuts if len(data) < 20000 else self.edges(expected):
                    self.assertEqual(
                        parse(recorded.psk, [data[:cut], data[cut:]]),
                        expected,
                        (recorded.name, side, cut),
                    )

    @staticmethod
    def edges(frames: list[Frame]) -> Iterator[int]:
        end = 0
        for i, (_, length, flag, _) in enumerate(frames):
            end += 52 + (length if flag == Flag.DATA else 0)
            if i < 6:
                yield from (end - 1, end - 16, end + 36, end - 1000)

    def test_bytewise(self) -> None:
        """
        Received byte by byte, or in other small pieces, the bytes of each side give the
        same frames.
        """
        for recorded in sessions():
            for side in SIDES:
                data = recorded.bytesOf(side)
                for size in (1, 7, 1448):
                    pieces = [data[i : i + size] for i in range(0, len(data), size)]
                    self.assertEqual(
                        parse(recorded.psk, pieces), recorded.framesOf(side)
                    )


def factoryFor(
    recorded: Session, streams: Recorders, isClient: bool, clock: Clock
) -> MuxFactory:
    """
    @return: a factory that knows no first frames, so that a session can be replayed.
    """
    factory = MuxFactory(recorded.psk, isClient, streams, clock=clock, greet=False)
    factory.keyring.firstFrames = FirstFrames()
    return factory


class Replay:
    """
    Replays one side of a session to a live mux, which does what the other side did in
    the recording.

    @ivar frames: the frames that the live mux sent.
    @ivar streams: the protocols of the live mux's streams, by stream ID.
    @ivar kept: by stream ID, the credit that the mux had not sent when the stream
        ended.
    """

    def __init__(self, recorded: Session, live: str) -> None:
        isClient = live == "client"
        clock = Clock()
        self.streams: dict[int, Recorder] = {}
        self.factory = Recorders(HalfRecorder, made=self.made)
        self.rig = rig = Rig(
            isClient=isClient,
            psk=recorded.psk,
            clock=clock,
            factory=factoryFor(recorded, self.factory, isClient, clock),
        )
        self.kept: dict[int, int] = {}
        with patch.object(Scheduler, "forget", self.noting(Scheduler.forget)):
            for writer, data in recorded.writes:
                if writer == live:
                    for frame in parse(recorded.psk, [data]):
                        self.act(*frame)
                    rig.run()
                else:
                    rig.sendRaw(data)
        self.frames = [(i, n, flag, what) for i, flag, n, what in rig.peer.take()]

    def noting(
        self, forget: Callable[[Scheduler, int], int]
    ) -> Callable[[Scheduler, int], None]:
        """
        @return: a replacement of C{forget} that also notes how much credit was
            forgotten.
        """

        def noted(scheduler: Scheduler, streamID: int) -> None:
            self.kept[streamID] = self.held(streamID) + forget(scheduler, streamID)

        return noted

    def held(self, streamID: int) -> int:
        """
        @return: how much credit a live stream holds back.
        """
        return (self.streams[streamID].stream.receiveWindow or ReceiveWindow()).held

    def made(self, recorder: Recorder) -> None:
        self.streams[recorder.stream.streamID] = recorder

    def act(self, streamID: int, length: int, flag: int, payload: bytes) -> None:
        """
        Do what makes the live mux send a frame like this one.
        """
        if flag == Flag.OPEN_STREAM:
            self.rig.mux.openStream(self.factory)
        elif flag == Flag.DATA:
            self.streams[streamID].stream.write(payload)
        elif flag == Flag.CLOSE_READ:
            self.streams[streamID].stream.loseWriteConnection()
        elif flag == Flag.CLOSE_WRITE:
            self.streams[streamID].stream.loseReadConnection()
        elif flag == Flag.CLOSE_STREAM:
            self.streams[streamID].stream.loseConnection()
        elif flag == Flag.CLOSE_MUX:
            self.rig.mux.close()


def summary(frames: list[Frame]) -> dict[int, list[tuple[int, bytes]]]:
    """
    @return: by stream ID, the flags and the data that were sent, without credit and
        Keepalives.  Adjacent pieces of data are joined.  CloseMux has the stream ID -1.
    """
    found: dict[int, list[tuple[int, bytes]]] = {}
    for streamID, _, flag, payload in frames:
        if flag == Flag.CLOSE_MUX:
            streamID = -1
        if flag in (Flag.WINDOW_UPDATE, Flag.KEEPALIVE):
            continue
        events = found.setdefault(streamID, [])
        if events and flag == Flag.DATA == events[-1][0]:
            payload = events.pop()[1] + payload
        events.append((flag, payload))
    return found


def credits(frames: list[Frame]) -> dict[int, int]:
    """
    @return: by stream ID, the credit that was sent.
    """
    found: dict[int, int] = {}
    for streamID, length, flag, _ in frames:
        if flag == Flag.WINDOW_UPDATE:
            assert length <= 65536 or length == 131072
            found[streamID] = found.get(streamID, 0) + length
    return found


class ReplayTests(SynchronousTestCase):
    """
    Sessions of which one side is replayed to a live mux.
    """

    #: The sessions in which this side sends more CloseStream frames than the reference:
    #: one for each stream before CloseMux, and one once both halves are closed.
    MORE_CLOSES = ("bothhalves", "halfclose", "serverclose", "hello")

    def replay(self, side: str) -> None:
        """
        Replay one side of each session, and compare the frames, the credit and the
        data.
        """
        for recorded in sessions():
            if recorded.name == "wrongpsk":
                continue
            live = "server" if side == "client" else "client"
            replay = Replay(recorded, live)
            expected = recorded.framesOf(live)
            self.check_frames(recorded, replay.frames, expected)
            self.check_credit(recorded, replay, expected)
            # The live applications have received the data that was sent to them.
            for streamID, events in summary(recorded.framesOf(side)).items():
                data = b"".join(what for flag, what in events if flag == Flag.DATA)
                if streamID in replay.streams and recorded.name != "closeread":
                    received = replay.streams[streamID].received
                    self.assertEqual(received, data, recorded.name)

    def check_frames(
        self, recorded: Session, frames: list[Frame], expected: list[Frame]
    ) -> None:
        """
        Check that each stream has the same frames with the same contents.
        """
        live, old = summary(frames), summary(expected)
        self.assertEqual(live.keys(), old.keys(), recorded.name)
        for streamID, events in old.items():
            more = [(Flag.CLOSE_STREAM, b"")]
            if live[streamID] == events + more and recorded.name in self.MORE_CLOSES:
                continue
            self.assertEqual(live[streamID], events, (recorded.name, streamID))

    def check_credit(
        self, recorded: Session, replay: Replay, expected: list[Frame]
    ) -> None:
        """
        Check that the same credit was sent.  Less than 65536 bytes may be held back on
        a stream, and credit that was due at the end of a stream may be missing.
        """
        live, old = credits(replay.frames), credits(expected)
        for streamID in live.keys() | old.keys():
            given = live.get(streamID, 0)
            received = len(replay.streams[streamID].received)
            self.assertLessEqual(given, received, recorded.name)
            self.assertLess(old.get(streamID, 0) - given, 65536, recorded.name)
            kept = replay.kept.get(streamID)
            if kept is None:
                kept = replay.held(streamID)
            self.assertEqual(given + kept, received, recorded.name)
        for _, length, flag, _ in replay.frames:
            if flag == Flag.WINDOW_UPDATE:
                self.assertLessEqual(length, 65536)

    def test_client(self) -> None:
        """
        A live server answers each recorded client as the recorded server did.
        """
        self.replay("client")

    def test_server(self) -> None:
        """
        A live client answers each recorded server as the recorded client did.
        """
        self.replay("server")

    def test_wrongKey(self) -> None:
        """
        A live server with another key sends nothing and ends the carrier.
        """
        recorded = session("wrongpsk")
        clock = Clock()
        factory = MuxFactory("other", False, Recorders(), clock=clock)
        rig = Rig(clock=clock, factory=factory)
        rig.sendRaw(recorded.bytesOf("client"))
        self.assertIsInstance(rig.reason(), AuthenticationFailed)
        self.assertEqual(rig.peer.bytesReceived, 0)


class ApplicationTests(SynchronousTestCase):
    """
    Recorded clients, served by ordinary Twisted protocols.
    """

    def serve(self, name: str, kind: type[Recorder] = Recorder, **hooks: Any) -> Rig:
        """
        Replay the client's side of a session in the order of its writes.
        """
        recorded = session(name)
        clock = Clock()
        streams = Recorders(kind, **hooks)
        factory = factoryFor(recorded, streams, False, clock)
        rig = Rig(clock=clock, psk=recorded.psk, factory=factory)
        rig.streams = streams
        for writer, data in recorded.writes:
            if writer == "client":
                rig.sendRaw(data)
        return rig

    def answers(self, rig: Rig, name: str) -> None:
        """
        Check that the server answered as in the recording, apart from credit.
        """
        frames = [(i, n, flag, what) for i, flag, n, what in rig.peer.take()]
        self.assertEqual(summary(frames), summary(session(name).framesOf("server")))

    def test_hello(self) -> None:
        """
        A protocol that answers and closes gives the recorded answer.
        """

        def greet(recorder: Recorder) -> None:
            recorder.stream.write(b"hello, " + recorder.received + b"!")
            recorder.stream.loseConnection()

        self.answers(self.serve("hello", data=greet), "hello")

    def test_unread(self) -> None:
        """
        Data that was written before a close is delivered completely.
        """
        rig = self.serve("unread")
        [recorder] = rig.streams.made
        self.assertEqual(len(recorder.received), 1000)
        self.assertEqual(recorder.events, ["made", "data", "lost"])
        self.answers(rig, "unread")

    def test_rapidClose(self) -> None:
        """
        Streams that were closed as soon as they were opened still deliver their data.
        """
        rig = self.serve("rapidclose")
        self.assertEqual(len(rig.streams.made), 20)
        for recorder in rig.streams.made:
            self.assertEqual(len(recorder.received), 10)
            self.assertEqual(recorder.events, ["made", "data", "lost"])
        self.answers(rig, "rapidclose")

    def test_many(self) -> None:
        """
        A half-closeable echo on a hundred streams gives the recorded answers.
        """
        rig = self.serve(
            "many",
            HalfRecorder,
            data=lambda recorder: recorder.stream.write(bytes(recorder.received)),
            readLost=lambda recorder: recorder.stream.loseConnection(),
        )
        self.assertEqual(len(rig.streams.made), 100)
        self.answers(rig, "many")

    def test_manyPlain(self) -> None:
        """
        An echo on a hundred streams gives the recorded answers even if its protocol is
        not half-closeable.
        """
        rig = self.serve(
            "many",
            data=lambda recorder: recorder.stream.write(bytes(recorder.received)),
        )
        self.answers(rig, "many")

    def test_closeRead(self) -> None:
        """
        A protocol is told that the client no longer reads.
        """
        rig = self.serve("closeread", HalfRecorder)
        [recorder] = rig.streams.made
        self.assertEqual(recorder.events, ["made", "writeLost", "data"])
        self.assertEqual(len(recorder.received), 10)

    def test_bulk(self) -> None:
        """
        300000 bytes arrive unchanged.
        """
        [recorder] = self.serve("bulk").streams.made
        self.assertEqual(recorder.received, bytes(i * 7 % 256 for i in range(300000)))
