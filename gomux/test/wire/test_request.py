# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
Tests for L{gomux._wire.request}.
"""

from __future__ import annotations

import json
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from gomux._wire.request import (
    CODES,
    MalformedMessage,
    Request,
    checkServiceName,
    decodeAnswer,
    decodeRequest,
    encodeAnswer,
    encodeRequest,
    splitMessage,
)
from gomux.limits import MAX_REQUEST
from gomux.test.support import requestvectors

VECTORS = Path(__file__).parent.parent / "vectors" / "requests.json"


def split(message: str) -> bytes:
    """
    @return: the JSON of a message in a vector, which has nothing after it.
    """
    found = splitMessage(bytes.fromhex(message))
    assert found is not None and not found[1]
    return found[0]


class VectorTests(SynchronousTestCase):
    """
    The messages of C{vectors/requests.json}
    """

    def setUp(self) -> None:
        self.vectors = json.loads(VECTORS.read_text())

    def test_document(self) -> None:
        """
        The file has the messages that docs/protocol.rst describes.
        """
        self.assertEqual(requestvectors.vectors(), self.vectors)

    def test_requests(self) -> None:
        """
        Each valid request is understood.
        """
        for entry in self.vectors["requests"]:
            expected = entry["request"]
            connect = expected.get("connect")
            self.assertEqual(
                decodeRequest(split(entry["message"])),
                Request(
                    expected.get("service"),
                    None if connect is None else tuple(connect),
                    expected.get("from"),
                    expected.get("to"),
                ),
            )

    def test_malformedRequests(self) -> None:
        """
        No malformed request is understood.
        """
        for message in self.vectors["malformedRequests"]:
            self.assertRaises(MalformedMessage, decodeRequest, split(message))

    def test_answers(self) -> None:
        """
        Each valid answer is understood.  A code of a later version is C{failed}.
        """
        for entry in self.vectors["answers"]:
            refusal = decodeAnswer(split(entry["message"]))
            code = None if refusal is None else refusal[0]
            self.assertEqual(code, entry["code"])

    def test_malformedAnswers(self) -> None:
        """
        No malformed answer is understood.
        """
        for message in self.vectors["malformedAnswers"]:
            self.assertRaises(MalformedMessage, decodeAnswer, split(message))


class SplitTests(SynchronousTestCase):
    """
    L{splitMessage}
    """

    def test_pieces(self) -> None:
        """
        A message is found once it is complete, and not before.  The bytes after it are
        returned unchanged.
        """
        message = encodeRequest(Request("chat"))
        for size in range(len(message)):
            self.assertIsNone(splitMessage(message[:size]))
        for rest in (b"", b"x", message):
            self.assertEqual(splitMessage(message + rest), (message[2:], rest))

    def test_size(self) -> None:
        """
        A message of L{MAX_REQUEST} bytes is accepted.  A larger one is refused as soon
        as its size is known.
        """
        most = MAX_REQUEST.to_bytes(2, "little")
        self.assertIsNone(splitMessage(most))
        self.assertEqual(splitMessage(most + bytes(4096)), (bytes(4096), b""))
        for size in (MAX_REQUEST + 1, 65535):
            data = size.to_bytes(2, "little")
            self.assertRaises(MalformedMessage, splitMessage, data)

    def test_notUTF8(self) -> None:
        """
        A message that is not UTF-8 is malformed.
        """
        for message in (b'{"service":"chat","x":"\xff"}', b"\xff\xfe", b"{\0}"):
            self.assertRaises(MalformedMessage, decodeRequest, message)


class EncodeTests(SynchronousTestCase):
    """
    L{encodeRequest} and L{encodeAnswer}
    """

    def test_requests(self) -> None:
        """
        What is encoded is decoded to the same request.
        """
        for request in (
            Request("chat"),
            Request("A.z_0-9", client="192.0.2.1:5", reached="unix:/tmp/\xe4"),
            Request(connect=("example.org", 22)),
            Request(connect=("2001:db8::1", 22), client="[::1]:0"),
        ):
            found = splitMessage(encodeRequest(request) + b"rest")
            assert found is not None
            self.assertEqual(decodeRequest(found[0]), request)
            self.assertEqual(found[1], b"rest")

    def test_notValid(self) -> None:
        """
        A request that a peer would not understand is not encoded.
        """
        for request in (
            Request(),
            Request("chat", ("example.org", 22)),
            Request("not a name"),
            Request("unnamed"),
            Request(connect=("example.org", 65536)),
            Request(connect=("", 22)),
            Request("chat", client="somewhere"),
            Request("chat", client="unix:" + 5000 * "x"),
        ):
            self.assertRaises(ValueError, encodeRequest, request)

    def test_answers(self) -> None:
        """
        What is encoded is decoded to the same code.
        """
        self.assertIsNone(decodeAnswer(encodeAnswer()[2:]))
        for code, reason in CODES.items():
            self.assertEqual(decodeAnswer(encodeAnswer(code)[2:]), (code, reason))


class NameTests(SynchronousTestCase):
    """
    L{checkServiceName}
    """

    def test_names(self) -> None:
        """
        A name has 1 to 64 characters of the allowed ones, and is not the reserved name.
        """
        for name in ("a", "A-z_0.9", 64 * "x", "Unnamed", "-"):
            self.assertEqual(checkServiceName(name), name)
        for name in ("", 65 * "x", "a b", "a/b", "\xe4", "a\n", "unnamed"):
            self.assertRaises(ValueError, checkServiceName, name)
