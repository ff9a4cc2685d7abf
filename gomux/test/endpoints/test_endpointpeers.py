# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
Tests for L{gomux.endpoints} and L{gomux.session} with the keys of several peers.
"""

from __future__ import annotations

import os
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import (
    TCP4ClientEndpoint,
    TCP4ServerEndpoint,
    clientFromString,
    quoteStringArgument,
    serverFromString,
)
from twisted.internet.interfaces import IProtocol
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from gomux import (
    Keyring,
    MuxClientEndpoint,
    MuxFactory,
    MuxPool,
    MuxPort,
    MuxServerEndpoint,
    Session,
    StreamClientEndpoint,
)
from gomux._wire.frame import REQUEST, Flag
from gomux._wire.request import Request, encodeRequest
from gomux._wire.salts import Salts
from gomux.error import KeyringError, OpenStreamError, ServiceNotAllowed
from gomux.test.support.helpers import Parts, Recorders
from gomux.testing import MuxPair

KEYS = {
    "alice": "the secret key of alice",
    "bob": "the secret key of bob",
}


class PeersTestCase(SynchronousTestCase):
    """
    Provides a keyring, and a file with the same keys.
    """

    def setUp(self) -> None:
        self.reactor = MemoryReactorClock()
        self.keyring = Keyring(KEYS)
        path = os.path.abspath(self.mktemp())
        with open(path, "w") as file:
            file.writelines(f"{name}:{key}\n" for name, key in KEYS.items())
        os.chmod(path, 0o600)
        self.pskFile = f"pskFile={quoteStringArgument(path)}"

    def pair(self, client: MuxFactory, server: MuxFactory) -> MuxPair:
        """
        Connect two muxes.
        """
        pair = MuxPair(clientFactory=client, serverFactory=server, clock=self.reactor)
        pair.flush()
        return pair

    def factory(self, psk: Any, isClient: bool, **settings: Any) -> MuxFactory:
        return MuxFactory(psk, isClient, clock=self.reactor, **settings)

    def peerOf(self, client: MuxFactory) -> str:
        """
        @return: who a client is to a server with the same keys.
        """
        return self.pair(client, self.factory(self.keyring, False)).server.peerName


class ClientTests(PeersTestCase):
    """
    Clients with the keys of several peers
    """

    def endpoint(self, **settings: Any) -> MuxClientEndpoint:
        carrier = TCP4ClientEndpoint(self.reactor, "192.0.2.1", 7000)
        return MuxClientEndpoint(self.reactor, carrier, self.keyring, **settings)

    def string(self, words: str) -> MuxClientEndpoint:
        endpoint: MuxClientEndpoint = clientFromString(
            self.reactor, f"gomux:tcp:192.0.2.1:7000:{self.pskFile}{words}"
        )
        return endpoint

    def test_endpoint(self) -> None:
        """
        C{peer} of an endpoint says whose key it uses.
        """
        for name in KEYS:
            self.assertEqual(self.peerOf(self.endpoint(peer=name)._mux), name)

    def test_string(self) -> None:
        """
        C{peer=} of a string says whose key it uses.  Strings with the same peer share a
        mux, and strings with different peers do not.
        """
        endpoints = [self.string(f":peer={name}") for name in KEYS]
        for name, endpoint in zip(KEYS, endpoints, strict=True):
            self.assertEqual(self.peerOf(endpoint._mux), name)
            again = self.string(f":peer={name}:service=chat")
            self.assertIs(again._mux, endpoint._mux)
        self.assertIsNot(endpoints[0]._mux, endpoints[1]._mux)

    def test_wrong(self) -> None:
        """
        Where the file has several keys, one of them must be named.
        """
        for make in (self.endpoint, lambda: self.string("")):
            error = self.assertRaises(KeyringError, make)
            self.assertIn("there are 2", str(error))
        self.assertIn("say whose key to use with peer=", str(error))
        for peer in ("carol", ""):
            self.assertRaises(KeyringError, self.endpoint, peer=peer)
            error = self.assertRaises(ValueError, self.string, f":peer={peer}")
            self.assertEqual(str(error), f"peer={peer}: no key has this name")

    def test_secret(self) -> None:
        """
        If a string has the key itself, an error shows nothing that may be a part of it.
        """
        for word in ("peer", "strictPeer"):
            error = self.assertRaises(
                ValueError,
                clientFromString,
                self.reactor,
                f"gomux:tcp:192.0.2.1:7000:psk=0123456789abcdef:{word}=secret",
            )
            self.assertIn(f"{word}= needs pskFile=", str(error))
            self.assertNotIn("secret", str(error))
        self.flushWarnings()

    def test_pool(self) -> None:
        """
        An endpoint of a pool can be for a single peer, and waits for it.
        """
        server = self.factory(self.keyring, False)
        made = {name: Recorders() for name in KEYS}
        alice, bob = (self.factory(KEYS[name], True) for name in KEYS)
        for name, factory in zip(KEYS, (alice, bob), strict=True):
            factory.streamFactory = made[name]
            factory.services["chat"] = made[name]
        first = self.pair(alice, server)
        endpoint = StreamClientEndpoint(server.pool, peer="bob")
        waiting = endpoint.connect(Recorders())
        first.flush()
        self.assertNoResult(waiting)
        second = self.pair(bob, server)
        self.successResultOf(waiting)
        named = StreamClientEndpoint(server.pool, "chat", "bob")
        opened = named.connect(Recorders())
        second.flush()
        self.successResultOf(opened)
        self.assertEqual(len(made["bob"].made), 2)
        self.assertEqual(made["alice"].made, [])
        self.assertRaises(ValueError, StreamClientEndpoint, first.server, peer="alice")
        self.assertRaises(ValueError, StreamClientEndpoint, server.pool, "a b", "bob")

    def test_poolTimeout(self) -> None:
        """
        If the peer of such an endpoint does not come, the connection fails.
        """
        pool = MuxPool(self.reactor, 5)
        failing = StreamClientEndpoint(pool, peer="bob").connect(Recorders())
        self.reactor.advance(5)
        failure = self.failureResultOf(failing, OpenStreamError)
        self.assertIn("no mux of 'bob'", str(failure.value))

    def test_session(self) -> None:
        """
        C{peer} of a session says whose key it uses.
        """

        class Carrier:
            def connect(self, factory: MuxFactory) -> Deferred[Any]:
                made.append(factory)
                return Deferred()

        made: list[MuxFactory] = []
        for name in KEYS:
            carrier: Any = Carrier()
            Session.client(self.reactor, carrier, self.keyring, peer=name)
            self.assertEqual(self.peerOf(made[-1]), name)
        self.assertRaises(
            *(KeyringError, Session.client, self.reactor, carrier, self.keyring)
        )


class ServerTests(PeersTestCase):
    """
    Servers that serve something to one of several peers
    """

    def setUp(self) -> None:
        super().setUp()
        self.carrier = TCP4ServerEndpoint(self.reactor, 7000)

    def listen(self, service: str | None, peer: str | None) -> MuxPort:
        endpoint = MuxServerEndpoint(
            self.reactor, self.carrier, self.keyring, service=service, peer=peer
        )
        return self.successResultOf(endpoint.listen(Recorders()))

    def opening(
        self, port: MuxPort, peer: str, service: str | None
    ) -> Deferred[IProtocol]:
        """
        Have a peer open a stream.
        """
        pair = self.pair(self.factory(KEYS[peer], True), port.factory)
        opening = pair.client.openStream(Recorders(), service)
        pair.flush()
        return opening

    def test_onePeer(self) -> None:
        """
        A service with a C{peer} is for that peer only.  Other services of the same port
        are not concerned, whatever came first.
        """
        self.listen("web", None)
        chat = self.listen("chat", "alice")
        self.listen("mail", "bob")
        self.assertEqual(len(self.reactor.tcpServers), 1)
        for peer, service, isAllowed in (
            ("alice", "web", True),
            ("bob", "web", True),
            ("alice", "chat", True),
            ("bob", "chat", False),
            ("alice", "mail", False),
            ("bob", "mail", True),
        ):
            opening = self.opening(chat, peer, service)
            if isAllowed:
                self.successResultOf(opening)
            else:
                self.failureResultOf(opening, ServiceNotAllowed)
        self.successResultOf(chat.stopListening())
        chat.startListening()
        self.failureResultOf(self.opening(chat, "bob", "chat"), ServiceNotAllowed)

    def test_requestAfterStop(self) -> None:
        """
        A peer that may not use a service does not get it by a request that it completes
        after the last port has stopped listening.
        """
        port = self.listen("chat", "alice")
        pair = self.pair(self.factory(KEYS["bob"], True), port.factory)
        opened: Any = self.successResultOf(pair.client.openStream(Recorders()))
        stream = opened.stream
        frames = Parts(pair.client).scheduler._control.frames
        frames[-1] = (stream.streamID, Flag.OPEN_STREAM, REQUEST, None)
        pair.flush()
        self.successResultOf(port.stopListening())
        stream.write(encodeRequest(Request("chat")))
        pair.flush()
        made: Any = port.streamFactory
        self.assertEqual(made.made, [])

    def test_unnamed(self) -> None:
        """
        Streams without a service can be for one peer too.
        """
        port = self.listen(None, "alice")
        for peer, isAllowed in (("alice", True), ("bob", False)):
            stream: Any = self.successResultOf(self.opening(port, peer, None))
            self.assertEqual(stream.reason is None, isAllowed)

    def test_string(self) -> None:
        """
        C{peer=} of a string does the same, and strings with different peers share a
        port.
        """
        ports: list[MuxPort] = []
        for words in (":service=web", ":service=chat:peer=alice"):
            string = f"gomux:tcp:7000:{self.pskFile}{words}"
            endpoint = serverFromString(self.reactor, string)
            ports.append(self.successResultOf(endpoint.listen(Recorders())))
        self.assertIs(ports[0].factory, ports[1].factory)
        self.successResultOf(self.opening(ports[0], "bob", "web"))
        self.successResultOf(self.opening(ports[0], "alice", "chat"))
        self.failureResultOf(self.opening(ports[0], "bob", "chat"), ServiceNotAllowed)

    def test_wrong(self) -> None:
        """
        The peer must have a key.
        """
        for peer in ("carol", ""):
            self.assertRaises(KeyringError, self.listen, None, peer)
            string = f"gomux:tcp:7000:{self.pskFile}:peer={peer}"
            self.assertRaises(ValueError, serverFromString, self.reactor, string)
        self.assertEqual(self.reactor.tcpServers, [])


class StrictPeerTests(PeersTestCase):
    """
    C{strictPeer=} in strings
    """

    def served(self, words: str) -> MuxFactory:
        """
        @return: the factory of a server.
        """
        endpoint = serverFromString(
            self.reactor, f"gomux:tcp:7000:{self.pskFile}:{words}"
        )
        factory: MuxFactory = self.successResultOf(endpoint.listen(Recorders())).factory
        return factory

    def test_names(self) -> None:
        """
        The peers that are named must be in strict mode, and no others.
        """
        for words, peers in (
            ("strictPeer=alice", {"alice"}),
            ("strictPeer=bob,alice:context=c:strictClock=yes", {"alice", "bob"}),
        ):
            factory = self.served(words)
            for name in KEYS:
                for strict in (False, True):
                    settings = {"context": factory.context} if strict else {}
                    client = self.factory(
                        KEYS[name], True, strict=strict, salts=Salts(), **settings
                    )
                    pair = self.pair(client, factory)
                    self.assertEqual(
                        pair.client.authenticated, strict == (name in peers)
                    )

    def test_client(self) -> None:
        """
        A client with the keys of several peers is in strict mode with those peers.
        """
        for name in KEYS:
            endpoint: MuxClientEndpoint = clientFromString(
                self.reactor,
                f"gomux:tcp:192.0.2.1:7000:{self.pskFile}:peer={name}:strictPeer=alice",
            )
            gate = endpoint._mux.makeGate()
            self.assertEqual(gate.isStrict, name == "alice")

    def test_wrong(self) -> None:
        """
        The names must be those of keys, and strict mode for all excludes them.
        """
        for words, says in (
            ("strictPeer=carol", "strictPeer=carol: no key has this name"),
            ("strictPeer=alice,", "strictPeer=: no key has this name"),
            ("strictPeer=alice:strict=yes", "leave out strictPeer="),
            ("context=c", "only with strict=yes or strictPeer="),
        ):
            error = self.assertRaises(ValueError, self.served, words)
            self.assertIn(says, str(error))
