"""
Tests that replay the fuzzer's corpus, and tests that the fuzz targets detect the faults
they look for.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from gomux._mux.stream import Stream
from gomux._wire.frame import Flag
from gomux._wire.window import ReceiveWindow
from gomux.error import GomuxError
from gomux.test.support.fuzztargets import ApplicationError, Script, corpus, mux, parser

#: A peer opens a stream that echoes, sends 300 bytes on it, and closes it.
SCRIPT = bytes([0, 1, 2, 0, 0, 0, 44, 1, 5, 0])


class CorpusTests(SynchronousTestCase):
    """
    L{gomux.test.support.fuzztargets}
    """

    def test_parser(self) -> None:
        """
        No input of the parser's corpus fails.
        """
        for data in corpus("parser"):
            parser(data)

    def test_mux(self) -> None:
        """
        No input of the mux's corpus fails.
        """
        for data in corpus("mux"):
            mux(data)
        self.flushLoggedErrors(ApplicationError)

    def test_script(self) -> None:
        """
        A script of the fuzzer runs its steps on the mux.
        """
        script = Script(SCRIPT)
        script.run()
        [application] = script.applications.made
        self.assertEqual(application.events, ["made", "data", "lost"])
        self.assertEqual(len(application.received), 300)
        self.assertEqual(application.received, script.received[0])
        self.assertEqual(script.opens, {0: 1})
        self.assertIsInstance(script.ends[0], GomuxError)

    def test_strictScript(self) -> None:
        """
        A script for strict mode gets past the handshake and runs its steps.
        """
        script = Script(bytes([2]) + SCRIPT[1:])
        script.run()
        self.assertTrue(script.rig.mux.authenticated)
        self.assertEqual(len(script.received[0]), 300)

    def test_lostCredit(self) -> None:
        """
        The target detects credit that is never sent.
        """
        self.patch(ReceiveWindow, "consumed", lambda *_: 0)
        self.assertRaises(AssertionError, mux, SCRIPT)

    def test_noEnd(self) -> None:
        """
        The target detects a stream that never ends.
        """
        self.patch(Stream, "_lose", lambda stream: None)
        self.assertRaises(AssertionError, mux, SCRIPT)

    def test_otherError(self) -> None:
        """
        The target detects an error that the peer did not cause.
        """

        def fail(stream: Stream, size: int) -> None:
            raise ZeroDivisionError

        self.patch(Stream, "frameCredit", fail)
        step = bytes([Flag.WINDOW_UPDATE, 0, 1, 0])
        self.assertRaises(AssertionError, mux, SCRIPT[:-2] + step)
        self.flushLoggedErrors(ZeroDivisionError)
