"""
This project as a peer of the live tests and of the benchmarks.

README.rst describes its command line, its output and the line protocol.
L{twisted_serve} serves the streams that the peer opens, and L{twisted_drivers} has the
drivers.
"""

from __future__ import annotations

import os
import sys
import threading
from argparse import Namespace
from typing import TYPE_CHECKING, Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, DeferredList, DeferredQueue
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.interfaces import IProtocol, IProtocolFactory
from twisted.internet.protocol import Factory

import gomux.test  # noqa: F401  (for GOMUX_PLAIN)
from gomux import GomuxError, Limits, MuxFactory, MuxProtocol, StreamAddress
from gomux.error import ConnectionClosed, PeerClosedConnection
from gomux.tunnel import TunnelLimits, forward, target
from gomux.tunnel._localends import acceptLocally
from interop.peers.peerlib import BUFFER_SIZE, parseOptions, say, sayAddress, toLine
from interop.peers.twisted_drivers import Drivers
from interop.peers.twisted_serve import Command
from interop.peers.twisted_streams import Once, Paced

if TYPE_CHECKING:
    from twisted.python.failure import Failure

    from gomux._mux.pool import MuxPool

LIMITS = Limits(closeTimeout=5.0)
TUNNELS = TunnelLimits(waitTimeout=0.1)


class Session:
    """
    One mux, and the state that its streams share.

    @ivar subjects: Streams with the command C{steps}, until a control stream takes
        them.
    @ivar reports: Digests of the input of C{collect} streams.
    """

    def __init__(self, mux: MuxProtocol, peer: Peer) -> None:
        self.mux = mux
        self.clock = reactor
        self.paced = peer.paced
        self.subjects: DeferredQueue[Any] = DeferredQueue()
        self.reports: DeferredQueue[str] = DeferredQueue()
        self.drivers = Drivers(self)

    def open(self, protocol: IProtocol) -> Deferred[IProtocol]:
        """
        Open a stream.
        """
        return self.mux.openStream(Once(self.paced(protocol)))


class PeerFactory(MuxFactory):
    """
    Makes the muxes, and tells the program when one comes up or ends.
    """

    def __init__(self, peer: Peer, options: Namespace) -> None:
        super().__init__(
            options.psk,
            options.listen is None,
            streamFactory=peer,
            clock=reactor,
            limits=LIMITS,
            strict=options.strict,
            context=options.context,
        )
        self._peer = peer

    def muxConnected(self, mux: MuxProtocol) -> None:
        super().muxConnected(mux)
        self._peer.up(mux)

    def muxLost(self, mux: MuxProtocol, reason: GomuxError) -> None:
        super().muxLost(mux, reason)
        self._peer.down(mux, reason)


class PacedPool:
    """
    A pool of muxes for a tunnel.  It reads streams with the read size and delay of the
    command line.
    """

    def __init__(self, peer: Peer, pool: MuxPool) -> None:
        self._peer = peer
        self._pool = pool
        self.tally = pool.tally

    def openStream(
        self,
        factory: IProtocolFactory,
        timeout: float,
        service: str | None = None,
        peer: str | None = None,
    ) -> Deferred[IProtocol]:
        protocol = self._peer.paced(factory.buildProtocol(None))
        return self._pool.openStream(Once(protocol), timeout, service, peer)


class Peer:
    """
    The program.

    @ivar sessions: The muxes that are up, by the address of their peer.
    """

    def __init__(self, options: Namespace) -> None:
        self._options = options
        self.sessions: dict[object, Session] = {}
        self._driving = False
        self._code: int | None = None

    def run(self) -> int:
        """
        Run until something asks the program to exit.

        @return: The exit code.
        """
        options = self._options
        factory = PeerFactory(self, options)
        if options.target is not None:
            endpoint = TCP4ClientEndpoint(reactor, *options.target)
            self._serve = target("target", endpoint, reactor, TUNNELS).buildProtocol
        if options.forward is not None:
            pool = PacedPool(self, factory.pool)
            tunnel = forward("forward", pool, reactor, TUNNELS)
            self._bind("forwarding", options.forward, tunnel)
        if options.listen is not None:
            self._bind("listening", options.listen, factory)
        else:
            endpoint = TCP4ClientEndpoint(reactor, *options.connect)
            endpoint.connect(factory).addErrback(self._notConnected)
        reactor.addSystemEventTrigger("before", "shutdown", self._closeAll)
        reactor.run()
        assert self._code is not None
        return self._code

    def _bind(self, word: str, address: tuple[str, int], factory: Factory) -> None:
        host, port = address
        listener = reactor.listenTCP(port, factory, backlog=1024, interface=host)
        acceptLocally(listener)
        bound = listener.getHost()
        sayAddress(word, (bound.host, bound.port))

    def exit(self, code: int) -> None:
        """
        Stop with this exit code, unless the program is already stopping.
        """
        if self._code is None:
            self._code = code
            reactor.callWhenRunning(reactor.stop)

    def _notConnected(self, reason: Failure) -> None:
        print(f"connect: {reason.getErrorMessage()}", file=sys.stderr)
        self.exit(1)

    def _closeAll(self) -> Deferred[Any]:
        if self._code is None:  # a signal stops the reactor
            self._code = 0
        return DeferredList([s.mux.close() for s in self.sessions.values()])

    # Called by the factory

    def up(self, mux: MuxProtocol) -> None:
        """
        Take note of a mux that has come up.
        """
        session = Session(mux, self)
        self.sessions[mux.getCarrier().getPeer()] = session
        say("mux up")
        if self._options.drive and not self._driving:
            self._driving = True
            Deferred.fromCoroutine(self._drive(session)).addErrback(self._crashed)

    def down(self, mux: MuxProtocol, reason: GomuxError) -> None:
        """
        Take note of a mux that has ended.
        """
        self.sessions = {a: s for a, s in self.sessions.items() if s.mux is not mux}
        graceful = isinstance(reason, PeerClosedConnection)
        say(f"mux down: {'peer closed mux gracefully' if graceful else reason}")
        if self._options.connect is not None and not self._driving:
            self.exit(0 if graceful or isinstance(reason, ConnectionClosed) else 1)

    def _crashed(self, reason: Failure) -> None:
        reason.printTraceback()
        self.exit(1)

    async def _drive(self, session: Session) -> None:
        code = 0
        for line in self._options.drive:
            result = await session.drivers.run(line)
            say(toLine(result))
            if not result["ok"]:
                code = 1
            if result.get("held"):
                await _standardInput()
        await session.mux.close()
        self.exit(code)

    # Protocols of streams

    def buildProtocol(self, address: StreamAddress) -> IProtocol:
        """
        Make the protocol of a stream that the peer opened.
        """
        return self.paced(self._serve(address))

    def _serve(self, address: StreamAddress) -> IProtocol:
        """
        Make a protocol that serves the line protocol.  With C{--target} a tunnel
        replaces this method.
        """
        return Command(self, address)

    def paced(self, protocol: IProtocol) -> IProtocol:
        """
        Wrap a protocol so that it reads with the read size and delay of the command
        line.
        """
        size, delay = self._options.readSize, self._options.readDelay
        if size >= BUFFER_SIZE and not delay:
            return protocol
        return Paced(protocol, reactor, size, delay)


def _standardInput() -> Deferred[None]:
    """
    Wait for a line, or EOF, on standard input.
    """
    done: Deferred[None] = Deferred()

    def read() -> None:
        while os.read(0, 1) not in (b"\n", b""):
            pass
        reactor.callFromThread(done.callback, None)

    threading.Thread(target=read, daemon=True).start()
    return done


if __name__ == "__main__":
    sys.exit(Peer(parseOptions(sys.argv[1:])).run())
