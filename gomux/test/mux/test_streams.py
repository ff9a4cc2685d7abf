"""
Tests for L{gomux._mux.streams}: stream IDs and counts.
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
        A client opens streams with even IDs, a server with odd IDs.
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
        C{wasOpened} is true for each ID up to the highest ID that its side has used.
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
        The ID of a refused stream counts as used.
        """
        rig = Rig()
        Parts(rig.mux).streams.peerOpens(0, isWelcome=False)
        self.assertTrue(Parts(rig.mux).streams.wasOpened(0))
        self.assertEqual(rig.mux.streamCount, 0)
        self.assertEqual(rig.streams.made, [])

    def test_lastID(self) -> None:
        """
        C{hasIDs} is false once the last ID is used.
        """
        streams = Parts(Rig(isClient=True).mux).streams
        streams.nextID = ID_END - 4
        streams.open(Recorders())
        self.assertTrue(streams.hasIDs)
        streams.open(Recorders())
        self.assertFalse(streams.hasIDs)

    def test_poked(self) -> None:
        """
        C{_nextID} of the mux reads and sets the ID of its next stream.
        """
        rig = Rig(isClient=True)
        rig.mux._nextID = 100
        self.assertEqual(rig.open().stream.streamID, 100)
        self.assertEqual(rig.mux._nextID, 102)

    def test_noProtocol(self) -> None:
        """
        If C{buildProtocol} returns C{None}, opening fails, no stream is kept, and its
        ID is not used again.
        """

        class Nothing(Recorders):
            def buildProtocol(self, addr: object) -> None:  # type: ignore[override]
                return None

        streams = Parts(Rig(isClient=True).mux).streams
        self.failureResultOf(streams.open(Nothing()), NoProtocol)
        self.assertEqual((len(streams), streams.protocolCount), (0, 0))
        self.assertEqual(streams.nextID, 2)
