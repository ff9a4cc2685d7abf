# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
Programs that were written for TCP, over gomux: each in the way that its user would
choose.
"""

from __future__ import annotations

import hashlib
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import treq
from foolscap.api import Referenceable, Tub
from foolscap.ipb import IConnectionHintHandler
from klein import Klein
from treq.client import HTTPClient
from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.endpoints import clientFromString, serverFromString
from twisted.trial.unittest import SynchronousTestCase, TestCase
from twisted.web.client import Agent
from twisted.web.iweb import IAgentEndpointFactory
from twisted.web.server import Site
from zope.interface import implementer

from gomux.test.support.ports import freePort

#: The directory that has the environment's programs.
BIN = Path(sys.executable).parent

#: How long one program may take, in seconds.
PATIENCE = 60

MEBIBYTE = 1024 * 1024


def writeKey(test: SynchronousTestCase) -> str:
    """
    @return: the path of a new file with a pre-shared key.
    """
    path = Path(test.mktemp()).absolute()
    path.write_text("a pre-shared key for real programs")
    path.chmod(0o600)
    return str(path)


class WormholeTests(SynchronousTestCase):
    """
    magic-wormhole: its mailbox server and its transit relay listen on endpoint strings
    of gomux.  Its client takes only a host and a port, and so connects through a
    tunnel.
    """

    timeout = 4 * PATIENCE

    def setUp(self) -> None:
        self.key = writeKey(self)
        mailbox, relay = (self.serve(p) for p in ("wormhole-mailbox", "transitrelay"))
        self.options = [
            *("--relay-url", f"ws://127.0.0.1:{mailbox}/v1"),
            *("--transit-helper", f"tcp:127.0.0.1:{relay}"),
        ]

    def start(self, *argv: str) -> None:
        """
        Run a C{twistd} program until the test ends.
        """
        directory = Path(self.mktemp())
        directory.mkdir()
        with open(directory / "output", "wb") as output:
            process = subprocess.Popen(
                [BIN / "twistd", "--nodaemon", *argv],
                cwd=directory,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

        def stop() -> None:
            process.send_signal(signal.SIGTERM)
            process.wait(PATIENCE)
            text = (directory / "output").read_text()
            self.assertNotIn("Traceback", text)

        self.addCleanup(stop)

    def serve(self, plugin: str) -> int:
        """
        Run a server over gomux, and a tunnel to it.

        @return: the tunnel's port.
        """
        carrier, forward = freePort(), freePort()
        secret = f"pskFile={self.key}"
        self.start(
            *(plugin, "--port"), f"gomux:tcp:{carrier}:interface=127.0.0.1:{secret}"
        )
        self.start(
            *("gomux", "--psk-file", self.key, "--connect"),
            f"tcp:127.0.0.1:{carrier}",
            *("--forward", f"tcp:{forward}:interface=127.0.0.1"),
        )
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                socket.create_connection(("127.0.0.1", forward)).close()
                return forward
            except OSError:
                self.assertLess(time.monotonic(), deadline)
                time.sleep(0.05)

    def wormhole(self, *argv: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [BIN / "wormhole", *self.options, *argv],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        return process

    def finish(self, process: subprocess.Popen[str]) -> str:
        output, _ = process.communicate(timeout=PATIENCE)
        self.assertEqual(process.returncode, 0, output)
        return output

    def test_text(self) -> None:
        """
        A text arrives: both clients reach the mailbox through the mux.
        """
        code = ("--code", "7-gomux-text")
        sender = self.wormhole("send", *code, "--no-qr", "--text", "hello, gomux")
        receiver = self.wormhole("receive", "--only-text", "7-gomux-text")
        self.assertIn("hello, gomux\n", self.finish(receiver))
        self.finish(sender)

    def test_file(self) -> None:
        """
        A file arrives byte for byte.  Neither client listens, so the transit relay
        carries the file.
        """
        sent = Path(self.mktemp()).absolute()
        sent.write_bytes(os.urandom(4 * MEBIBYTE + 1))
        received = Path(self.mktemp()).absolute()
        code = "8-gomux-file"
        quiet = ("--hide-progress", "--no-listen")
        sender = self.wormhole("send", *quiet, "--no-qr", "--code", code, str(sent))
        receiver = self.wormhole(
            *("receive", *quiet, "--accept-file", "-o", str(received), code)
        )
        self.finish(receiver)
        self.assertIn("transfer complete", self.finish(sender).lower())
        self.assertEqual(received.read_bytes(), sent.read_bytes())


class Answering(Referenceable):
    """
    A foolscap object.
    """

    def remote_digest(self, data: bytes) -> bytes:
        return hashlib.sha256(data).digest()

    def remote_call(self, other: Any, data: bytes) -> Any:
        """
        Call back.
        """
        return other.callRemote("digest", data)

    def remote_fail(self) -> None:
        raise ValueError("as the test wants")


@implementer(IConnectionHintHandler)
class Hints:
    """
    Connects foolscap to hints like C{gomux:CARRIER}.
    """

    def __init__(self, key: str) -> None:
        self.key = key

    def hint_to_endpoint(self, hint: str, reactor: Any, status: Any) -> Any:
        return clientFromString(reactor, f"{hint}:pskFile={self.key}"), "localhost"


class FoolscapTests(TestCase):
    """
    foolscap, which begins TLS in the middle of the stream.
    """

    timeout = PATIENCE

    async def setUp(self) -> None:
        key, port = writeKey(self), freePort()
        self.server, self.client = Tub(), Tub()
        for tub in (self.server, self.client):
            tub.startService()
            self.addCleanup(tub.stopService)
        self.server.listenOn(f"gomux:tcp:{port}:interface=127.0.0.1:pskFile={key}")
        self.server.setLocation(f"gomux:tcp:127.0.0.1:{port}")
        self.client.addConnectionHintHandler("gomux", Hints(key))
        furl = self.server.registerReference(Answering())
        self.remote: Any = await self.client.getReference(furl)

    async def test_calls(self) -> None:
        """
        Many calls at once have their own answers.
        """
        bodies = [os.urandom(1 << size) for size in range(18)]
        calls = [self.remote.callRemote("digest", body) for body in bodies]
        self.assertEqual(
            await gatherResults(calls),
            [hashlib.sha256(body).digest() for body in bodies],
        )

    async def test_callBack(self) -> None:
        """
        The server calls an object of the client.
        """
        data = os.urandom(MEBIBYTE // 2)
        answer = await self.remote.callRemote("call", Answering(), data)
        self.assertEqual(answer, hashlib.sha256(data).digest())

    async def test_error(self) -> None:
        """
        An exception of the server arrives at the client.
        """
        failure = await self.assertFailure(self.remote.callRemote("fail"), Exception)
        self.assertIn("as the test wants", str(failure))
        self.flushLoggedErrors()


@implementer(IAgentEndpointFactory)
class Everything:
    """
    The same endpoint for each URI.
    """

    def __init__(self, endpoint: Any) -> None:
        self.endpoint = endpoint

    def endpointForURI(self, uri: Any) -> Any:
        return self.endpoint


class Application:
    """
    A Klein application.
    """

    app = Klein()

    @app.route("/digest", methods=["POST"])
    def digest(self, request: Any) -> bytes:
        return hashlib.sha256(request.content.read()).hexdigest().encode()

    @app.route("/bytes/<int:count>")
    def count(self, request: Any, count: int) -> bytes:
        return bytes(range(256)) * (count // 256)

    @app.route("/from")
    def peer(self, request: Any) -> bytes:
        return str(request.getClientAddress().host).encode()


class KleinTests(TestCase):
    """
    A Klein application, and treq as its client.
    """

    timeout = PATIENCE

    async def setUp(self) -> None:
        key, port = writeKey(self), freePort()
        listener: Any = await serverFromString(
            reactor, f"gomux:tcp:{port}:interface=127.0.0.1:pskFile={key}"
        ).listen(Site(Application().app.resource()))
        self.addCleanup(listener.stopListening)
        endpoint: Any = clientFromString(
            reactor, f"gomux:tcp:127.0.0.1:{port}:pskFile={key}"
        )
        self.addCleanup(endpoint.close)
        factory = Everything(endpoint)
        self.treq = HTTPClient(Agent.usingEndpointFactory(reactor, factory))

    async def test_post(self) -> None:
        """
        A large body arrives.
        """
        body = os.urandom(2 * MEBIBYTE)
        response = await self.treq.post("http://klein/digest", data=body)
        expected = hashlib.sha256(body).hexdigest()
        self.assertEqual(await treq.text_content(response), expected)

    async def test_together(self) -> None:
        """
        Many requests at once have their own answers.
        """
        counts = [256 * n for n in range(1, 400, 20)]

        async def get(count: int) -> int:
            response = await self.treq.get(f"http://klein/bytes/{count}")
            return len(await treq.content(response))

        waiting = [Deferred.fromCoroutine(get(count)) for count in counts]
        self.assertEqual(await gatherResults(waiting), counts)

    async def test_client(self) -> None:
        """
        The application sees the host of the carrier's peer.
        """
        response = await self.treq.get("http://klein/from")
        self.assertEqual(await treq.text_content(response), "127.0.0.1")
