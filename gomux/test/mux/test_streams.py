"""
Tests for L{gomux._mux.streams}: IDs and counts.
"""

from __future__ import annotations

from twisted.internet.error import NoProtocol
from twisted.trial.unittest import SynchronousTestCase

from gomux._wire.frame import ID_END, Flag
from gomux.test.support.helpers import Parts, Recorders, Rig


class StreamsTests(SynchronousTestCase):
    """
    L{Streams<gomux._mux.streams.Streams>}
    """

    def test_ids(self) -> None:
        """
        The client has the even IDs, the server the odd ones.
        """
        for isClient in (True, False):
            streams = Parts(Rig(isClient=isClient).mux).streams
            own, peers = (0, 1) if isClient else (1, 0)
            for count in range(3):
                self.assertEqual(streams.nextID, own + 2 * count)
                streams.open(Recorders())
            self.assertFalse(streams.isPeers(own))
            self.assertTrue(streams.isPeers(peers))

    def test_wasOpened(self) -> None:
        """
        A stream was opened if its ID is not above all that were used, by either side.
        """
        rig = Rig()
        streams = Parts(rig.mux).streams
        for streamID in (0, 1):
            self.assertFalse(streams.wasOpened(streamID))
        rig.open()
        for streamID in (4, 0):
            rig.send(streamID, Flag.OPEN_STREAM)
        rig.streams.made[0].stream.abortConnection()
        for streamID, was in ((0, True), (4, True), (6, False), (1, True), (3, False)):
            self.assertEqual(streams.wasOpened(streamID), was, streamID)

    def test_refused(self) -> None:
        """
        An ID counts as used also if the stream was refused.
        """
        rig = Rig()
        Parts(rig.mux).streams.peerOpens(0, isWelcome=False)
        self.assertTrue(Parts(rig.mux).streams.wasOpened(0))
        self.assertEqual(rig.mux.streamCount, 0)
        self.assertEqual(rig.streams.made, [])

    def test_lastID(self) -> None:
        """
        After the last ID there is none.
        """
        streams = Parts(Rig(isClient=True).mux).streams
        streams.nextID = ID_END - 4
        streams.open(Recorders())
        self.assertTrue(streams.hasIDs)
        streams.open(Recorders())
        self.assertFalse(streams.hasIDs)

    def test_poked(self) -> None:
        """
        The mux's own C{_nextID} is the same number.
        """
        rig = Rig(isClient=True)
        rig.mux._nextID = 100
        self.assertEqual(rig.open().stream.streamID, 100)
        self.assertEqual(rig.mux._nextID, 102)

    def test_noProtocol(self) -> None:
        """
        A stream that gets no protocol is not there, and its ID is not used again.
        """

        class Nothing(Recorders):
            def buildProtocol(self, addr: object) -> None:  # type: ignore[override]
                return None

        streams = Parts(Rig(isClient=True).mux).streams
        self.failureResultOf(streams.open(Nothing()), NoProtocol)
        self.assertEqual((len(streams), streams.protocolCount), (0, 0))
        self.assertEqual(streams.nextID, 2)
