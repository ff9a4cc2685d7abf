# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
Tests for muxes over TLS whose peers send small records.
"""

from __future__ import annotations

import struct
from typing import Any, cast

from twisted.internet import reactor
from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.internet.endpoints import (
    TCP4ClientEndpoint,
    TCP4ServerEndpoint,
    wrapClientTLS,
)
from twisted.internet.ssl import optionsForClientTLS
from twisted.protocols.tls import TLSMemoryBIOProtocol
from twisted.trial.unittest import TestCase

from gomux import MuxFactory, MuxProtocol
from gomux._carrier.records import RECORDS
from gomux._mux.newcomer import Newcomers
from gomux._wire.frame import MAX_LENGTH, Flag
from gomux.test.support.certificates import CERTIFICATE, NAME
from gomux.test.support.helpers import Recorders
from gomux.test.support.servertls import wrapServerTLS

PSK = "the pre-shared key of both"
#: How many records the peer sends at once.
MANY = 1000


class SmallRecordsTests(TestCase):
    """
    L{MuxFactory}
    """

    @inlineCallbacks
    def setUp(self) -> Any:  # type: ignore[override]
        """
        Connect a mux over TLS.
        """
        self.reads: list[MuxProtocol] = []
        self.most = 0
        receive = MuxProtocol.dataReceived

        def counted(mux: MuxProtocol, data: bytes) -> None:
            if not self.reads:
                cast(Any, reactor).callLater(0, self.reads.clear)
            self.reads.append(mux)
            self.most = max(self.most, self.reads.count(mux))
            receive(mux, data)

        clock: Any = reactor
        self.server = MuxFactory(PSK, False, Recorders(), clock=clock)
        self.client = MuxFactory(PSK, True, Recorders(), clock=clock)
        listening = TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1")
        port = yield wrapServerTLS(CERTIFICATE.options(), listening).listen(
            Newcomers(self.server)
        )
        self.addCleanup(port.stopListening)
        number = port.getHost().port
        dialling = TCP4ClientEndpoint(reactor, "127.0.0.1", number)
        self.patch(MuxProtocol, "dataReceived", counted)
        yield wrapClientTLS(optionsForClientTLS(NAME, CERTIFICATE), dialling).connect(
            self.client
        )
        while (
            not all(
                mux.authenticated for mux in (*self.client.muxes, *self.server.muxes)
            )
            or not self.server.muxes
        ):
            yield pause()

    @inlineCallbacks
    def check(self, sender: MuxFactory, receiver: MuxFactory) -> Any:
        """
        The sender sends most of a frame, one byte in a record, all at once: the
        receiver handles a few records in each turn of the reactor.
        """
        mux = receiver.muxes[0]
        before, self.most = mux.bytesReceived, 0
        frame = struct.pack("<III", 2, MAX_LENGTH, Flag.DATA) + bytes(MANY - 12)
        transport: Any = sender.muxes[0].transport
        for at in range(MANY):
            # Without the buffer above it, which joins small writes.
            TLSMemoryBIOProtocol.write(transport, frame[at : at + 1])
        while mux.bytesReceived < before + MANY:
            yield pause()
        self.assertTrue(0 < self.most <= 2 * RECORDS, self.most)
        transport.abortConnection()
        while self.client.muxes or self.server.muxes:
            yield pause()

    def test_server(self) -> Any:
        """
        A server handles a few records of a client in a turn.
        """
        return self.check(self.client, self.server)

    def test_client(self) -> Any:
        """
        A client handles a few records of a server in a turn.
        """
        return self.check(self.server, self.client)


def pause() -> Deferred[None]:
    """
    @return: fires in the next turn of the reactor.
    """
    done: Deferred[None] = Deferred()
    cast(Any, reactor).callLater(0, done.callback, None)
    return done
