"""
Tests that replay the fuzzer's corpus, and tests that the fuzz targets detect the faults
they look for.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.protocol import Factory
from twisted.trial.unittest import SynchronousTestCase

from gomux import tap
from gomux._mux import firstmessage as _firstmessage
from gomux._mux import requests as _requests
from gomux._mux.deadlines import Deadlines
from gomux._mux.liveness import PeerLiveness
from gomux._mux.stream import Stream
from gomux._wire import keyring
from gomux._wire.frame import Flag
from gomux._wire.request import MalformedMessage, Request, splitMessage
from gomux._wire.salts import Salts
from gomux._wire.strict import Handshake
from gomux._wire.window import ReceiveWindow
from gomux.endpoints._strings import _Words
from gomux.error import GomuxError, KeyringError
from gomux.test.support.fuzzconfig import config
from gomux.test.support.fuzzkeyfile import keyfile, masked
from gomux.test.support.fuzzrequests import requests
from gomux.test.support.fuzzstrict import Attack, strict
from gomux.test.support.fuzzstrings import strings
from gomux.test.support.fuzztargets import (
    ApplicationError,
    Script,
    corpus,
    mux,
    parser,
)

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

    def test_strict(self) -> None:
        """
        No input of the strict handshake's corpus fails.
        """
        for data in corpus("strict"):
            strict(data)

    def test_strings(self) -> None:
        """
        No input of the endpoint strings' corpus fails.
        """
        for data in corpus("strings"):
            strings(data)

    def test_keyfile(self) -> None:
        """
        No input of the key files' corpus fails.
        """
        for data in corpus("keyfile"):
            keyfile(data)

    def test_config(self) -> None:
        """
        No input of the corpus of configs and command lines fails.
        """
        for data in corpus("config"):
            config(data)

    def test_configShowsKey(self) -> None:
        """
        It is noticed if an error shows a key.
        """
        self.patch(tap, "hideSecrets", lambda text, given: text)
        self.assertRaises(AssertionError, config, b"\xff--max-streams\0\x01")

    def test_requests(self) -> None:
        """
        No input of the corpus of requests fails.
        """
        for data in corpus("requests"):
            requests(data)

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


#: The peer says hello, and confirms if it is a client.
HANDSHAKE = bytes([0, 0, 0, 0])


class StrictTargetTests(SynchronousTestCase):
    """
    L{gomux.test.support.fuzzstrict}
    """

    def test_handshake(self) -> None:
        """
        A genuine handshake authenticates a mux of either role, in any pieces.
        """
        for kind in (0, 1, 2):
            for size in (0, 0x10, 0x70):
                attack = Attack(bytes([kind]) + bytes([size, 0, size, 0]))
                attack.run()
                self.assertTrue(attack.attempt.mux.authenticated)

    def test_notGenuine(self) -> None:
        """
        A peer with another key, another context or the wrong role is not authenticated.
        """
        for kind in (4, 8, 16):
            for isClient in (0, 1):
                attack = Attack(bytes([kind + isClient]) + HANDSHAKE)
                attack.run()
                self.assertFalse(attack.attempt.mux.authenticated)

    def test_forgedConfirmation(self) -> None:
        """
        The target detects a mux that takes any frame for the confirmation.
        """
        self.patch(Handshake, "_receiveConfirmation", lambda *_: None)
        keepalive = [6, 0, *bytes(8), 1, *bytes(19)]
        error = self.assertRaises(AssertionError, strict, bytes([0, 0, 0, *keepalive]))
        self.assertIn("authenticated without", str(error))

    def test_refused(self) -> None:
        """
        The target detects a mux that does not accept a genuine handshake.
        """
        self.patch(Handshake, "passed", False)
        self.assertRaises(AssertionError, strict, b"\0" + HANDSHAKE)

    def test_noTimeout(self) -> None:
        """
        The target detects a handshake that never ends.
        """
        late = bytes([0, 9, 7])
        strict(late)
        self.patch(PeerLiveness, "_timedOut", lambda *_: None)
        error = self.assertRaises(AssertionError, strict, late)
        self.assertIn("has no end", str(error))

    def test_salts(self) -> None:
        """
        The target detects a salt that is kept after its handshake.
        """
        self.patch(Salts, "retire", lambda *_: None)
        error = self.assertRaises(AssertionError, strict, b"\0" + HANDSHAKE)
        self.assertIn("a salt is kept", str(error))


class StringsTargetTests(SynchronousTestCase):
    """
    L{gomux.test.support.fuzzstrings}
    """

    def test_keyShown(self) -> None:
        """
        The target detects an error that shows a part of a key.
        """
        inputs = [b"\0tcp:7000\x02", b"\xfftcp:7000\x06"]

        def notice(words: _Words, args: Any, kwargs: Any) -> None:
            make(words, args, kwargs)
            words._hasKey = False

        make = _Words.__init__
        for data in inputs:
            strings(data)
        self.patch(_Words, "__init__", notice)
        for data in inputs:
            self.assertRaises(AssertionError, strings, data)

    def test_listens(self) -> None:
        """
        The target detects a string that listens while it is parsed.
        """

        def listen(words: Any, role: str, make: Any, reactor: Any) -> None:
            reactor.listenTCP(7000, Factory())

        self.patch(_Words, "carrier", listen)
        self.assertRaises(AssertionError, strings, b"\xfftcp:7000\x01")

    def test_otherError(self) -> None:
        """
        The target lets any other error through.
        """

        def fail(*_: object) -> None:
            raise ZeroDivisionError

        self.patch(_Words, "takeSettings", fail)
        self.assertRaises(ZeroDivisionError, strings, b"\xfftcp:7000\x01")


class RequestsTargetTests(SynchronousTestCase):
    """
    L{gomux.test.support.fuzzrequests}
    """

    good = (
        bytes([4, 0, 0]) + b'{"service":"chat"}',
        bytes([4 + 2, 0, 0]) + b'{"ok":true}',
    )

    def check(self, *datas: bytes) -> None:
        """
        Check that each input fails.
        """
        for data in datas:
            self.assertRaises(AssertionError, requests, data)

    def test_good(self) -> None:
        """
        Valid requests and answers, and all ways to end, do not fail.
        """
        for data in self.good:
            for end in range(6):
                for size in (0, 1, 5):
                    requests(bytes([data[0], end, size]) + data[3:])

    def test_messageDelivered(self) -> None:
        """
        The target detects that the application gets a part of the message.
        """

        def split(data: bytes) -> tuple[bytes, bytes] | None:
            found = splitMessage(data)
            return None if found is None else (found[0], b"}" + found[1])

        self.patch(_firstmessage, "splitMessage", split)
        self.check(*self.good)

    def test_dataLost(self) -> None:
        """
        The target detects that the data behind a message is lost.
        """

        def split(data: bytes) -> tuple[bytes, bytes] | None:
            found = splitMessage(data)
            return None if found is None else (found[0], b"")

        self.patch(_firstmessage, "splitMessage", split)
        self.check(*self.good)

    def test_malformed(self) -> None:
        """
        The target detects that a malformed message is accepted, or a valid one is not.
        """
        bad = [bytes([data[0], 0, 0]) + b'{"x":1}' for data in self.good]
        for data in bad:
            requests(data)
        self.patch(_requests, "decodeRequest", lambda message: Request("chat"))
        self.patch(_requests, "decodeAnswer", lambda message: None)
        for data in bad:
            self.assertRaises((AssertionError, KeyError), requests, data)

        def fail(message: bytes) -> None:
            raise MalformedMessage()

        self.patch(_requests, "decodeRequest", fail)
        self.patch(_requests, "decodeAnswer", fail)
        self.check(*self.good)

    def test_forEver(self) -> None:
        """
        The target detects a request that has no time limit.
        """
        late = bytes([0, 0, 0, 5])
        requests(late)
        self.patch(Deadlines, "begin", lambda deadlines, accepting: None)
        self.check(late)


class KeyfileTargetTests(SynchronousTestCase):
    """
    L{gomux.test.support.fuzzkeyfile}
    """

    def test_masked(self) -> None:
        """
        A masked file has the same names and comments, and other keys.
        """
        self.assertEqual(masked(b"#a:b\na:b1\nc"), b"#a:b\na:o6\np")
        self.assertEqual(masked(b"a:b"), b"n:o")
        self.assertEqual(masked(b"[keyring]\na:b"), b"[keyring]\na:o")

    def test_keyShown(self) -> None:
        """
        The target detects an error that shows a key.
        """

        def show(content: bytes) -> None:
            raise KeyringError(f"cannot parse {content!r}")

        self.patch(keyring, "_parse", show)
        self.assertRaises(AssertionError, keyfile, b"\0some key of 16 bytes\n")

    def test_short(self) -> None:
        """
        The target detects a short key that is accepted.
        """
        keyfile(b"\0fifteen bytes..")
        self.patch(keyring, "SHORT_PSK", 15)
        self.assertRaises(AssertionError, keyfile, b"\0fifteen bytes..")

    def test_insecure(self) -> None:
        """
        The target detects an insecure file that is accepted.
        """
        data = b"\7some key of 16 bytes"
        keyfile(data)
        self.patch(keyring, "_UNSAFE", 0)
        self.assertRaises(AssertionError, keyfile, data)

    def test_otherError(self) -> None:
        """
        The target lets any other error through.
        """

        def fail(content: bytes) -> None:
            raise IndexError

        self.patch(keyring, "_parse", fail)
        self.assertRaises(IndexError, keyfile, b"\0some key of 16 bytes")
