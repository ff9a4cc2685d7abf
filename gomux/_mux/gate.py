# -*- test-case-name: gomux.test.mux.test_gate -*-
# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
The gate of a mux: how the peer shows that it holds the key.

The factory makes a gate for each mux.  The gate opens the first received frames, until
it is I{passed}: the peer has shown that it holds the key.  Then the mux takes the
opener of all further frames from the gate, and drops the gate.  There are three kinds:

  - L{KnownKey<gomux._wire.keysearch.KnownKey>}: compatible mode with one key.  The mux
    may send at once.  The first genuine frame shows that the peer holds the key.
  - L{Handshake<gomux._wire.strict.Handshake>}: strict mode.  Only the frames of the
    handshake may be sent before it is done.
  - L{KeyFinder}: for a server with several keys.  The mux can send nothing before the
    first frame shows which key the peer has.  Then it is one of the other two.

While the gate does not let the mux send, calls of C{openStream()} wait in
L{WaitingStreams}.  Calls for a service wait there until the peer's first frame shows
whether the peer understands requests, but no longer than L{GreetingWait} lets them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from twisted.internet.defer import Deferred, fail
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import (
    IDelayedCall,
    IProtocol,
    IProtocolFactory,
    IReactorTime,
)
from twisted.python.failure import Failure

from gomux._wire.crypto import Sealer
from gomux._wire.frame import FrameOpener
from gomux._wire.keysearch import KeySearch
from gomux.error import (
    GomuxError,
    HandshakeFailed,
    NeverAuthenticated,
    NotAuthenticated,
    OpenStreamError,
    Truncated,
)

if TYPE_CHECKING:
    from gomux._wire.keyring import Keys
    from gomux.interfaces import IStreamFactory
    from gomux.limits import Limits


class Gate(FrameOpener, Protocol):
    """
    Opens the first frames of a mux, until the gate is passed.

    C{open} raises L{NotYet<gomux._wire.frame.NotYet>} if it needs so much time that
    other connections would have to wait.  The mux then calls C{open} again with the
    same frame in later turns of the reactor, until C{open} returns.
    """

    @property
    def ownsFrames(self) -> bool:
        """
        Whether the frames that the gate opens are for the gate alone.  The mux does not
        handle those.
        """

    @property
    def isStrict(self) -> bool:
        """
        Whether the mux is in strict mode.  If that depends on the peer's key, C{False}
        until the key is known.
        """

    @property
    def missing(self) -> str:
        """
        What has not come from the peer, and why that may be: the end of a sentence.
        """

    @property
    def passed(self) -> bool:
        """
        Whether the peer has shown that it holds the key.
        """

    @property
    def name(self) -> str:
        """
        The name of the peer's key.  Read only once C{passed}.
        """

    @property
    def key(self) -> bytes:
        """
        The peer's key in the L{Keyring<gomux._wire.keyring.Keyring>}.  Read only once
        C{passed}.
        """

    @property
    def sealer(self) -> Sealer | None:
        """
        Seals the mux's frames.  C{None} while only the gate's own frames may be sent;
        never C{None} once C{passed}.
        """

    @property
    def opener(self) -> FrameOpener:
        """
        Opens all further frames.  Read only once C{passed}.
        """

    def takeOutput(self) -> bytes:
        """
        Called when the carrier is connected, and after each frame that was opened.

        @return: the gate's own frames to send now; often C{b""}.
        """

    def interrupted(self, detail: str) -> GomuxError:
        """
        Called when the carrier is lost before the gate is passed.

        @param detail: the carrier's error, as a sentence, or C{""}.
        @return: the reason for the end of the mux.
        """

    def close(self) -> None:
        """
        The gate is passed or the carrier is gone: release the gate's resources.
        """


class KeyFinder:
    """
    The gate of a server with several keys: it finds the peer's key by the first frame.
    The gate for that key then opens the frame again.

    See L{Gate}.

    @ivar _search: finds the peer's key.
    @ivar _gateFor: see L{__init__}.
    @ivar _isStrict: see L{__init__}.
    @ivar _gate: the gate for the peer's key, once that is known.
    """

    _gate: Gate | None = None

    def __init__(
        self, keys: Keys, gateFor: Callable[[str, bytes], Gate], isStrict: bool
    ) -> None:
        """
        @param keys: the keys that the peer may have.
        @param gateFor: called with the name of the peer's key, and the key; makes the
            gate for it.
        @param isStrict: whether all peers are in strict mode.
        """
        self._search = KeySearch(keys)
        self._gateFor = gateFor
        self._isStrict = isStrict

    def open(self, header: bytes, sealed: bytes | memoryview) -> bytes:
        """
        Take the peer's next frame.

        @raise NotYet: if there are more keys to try.
        @raise AuthenticationFailed: if none of the keys opens it, or if the peer's gate
            refuses it.
        """
        if self._gate is None:
            self._gate = self._gateFor(*self._search.open(header, sealed))
        return self._gate.open(header, sealed)

    @property
    def _found(self) -> Gate:
        assert self._gate is not None
        return self._gate

    @property
    def ownsFrames(self) -> bool:
        return self._found.ownsFrames

    @property
    def isStrict(self) -> bool:
        return self._isStrict if self._gate is None else self._gate.isStrict

    @property
    def missing(self) -> str:
        if self._gate is None:
            return "wrong pre-shared key, or no gomux peer?"
        return self._gate.missing

    @property
    def passed(self) -> bool:
        return self._gate is not None and self._gate.passed

    @property
    def name(self) -> str:
        return self._found.name

    @property
    def key(self) -> bytes:
        return b"" if self._gate is None else self._gate.key

    @property
    def sealer(self) -> Sealer | None:
        return None if self._gate is None else self._gate.sealer

    @property
    def opener(self) -> FrameOpener:
        return self._found.opener

    def takeOutput(self) -> bytes:
        return b"" if self._gate is None else self._gate.takeOutput()

    def interrupted(self, detail: str) -> GomuxError:
        if self._gate is not None:
            return self._gate.interrupted(detail)
        error = HandshakeFailed if self._isStrict else NeverAuthenticated
        return error(f"before any authenticated frame came; {self.missing}{detail}")

    def close(self) -> None:
        if self._gate is not None:
            self._gate.close()


def explainLoss(gate: Gate | None, loss: Failure) -> GomuxError:
    """
    Convert the loss of a carrier, which this side did not cause, to the mux's reason.

    @param gate: the gate; C{None} if it is passed.
    @param loss: why the carrier is gone.
    @return: the reason for the end of the mux.
    """
    if gate is None:
        return Truncated(loss.getErrorMessage())
    if loss.check(ConnectionDone):
        return gate.interrupted("")
    # For example, TLS did not accept a certificate.
    error = gate.interrupted(f" The carrier's own error: {loss.getErrorMessage()}")
    if isinstance(error, NotAuthenticated):
        error.carrierError = loss.value
    return error


class WaitingStreams:
    """
    The calls of C{openStream()} that wait for the gate to be passed, in order.

    @ivar _limit: how many calls may wait.
    @ivar _opened: the Deferreds that the calls returned, as the keys of a dictionary.
    """

    __slots__ = ("_limit", "_opened")

    def __init__(self, limit: int) -> None:
        """
        @param limit: how many calls may wait.
        """
        self._limit = limit
        self._opened: dict[Deferred[Any], None] = {}

    def add(
        self, factory: IStreamFactory | IProtocolFactory, service: str | None = None
    ) -> Deferred[IProtocol]:
        """
        Let a call wait.

        @param factory: makes the stream's protocol.
        @param service: the name of the peer's service; C{None} for none.
        @return: the Deferred that the call returns.  It may be cancelled.  It fails
            with L{OpenStreamError} if too many calls wait.
        """
        if len(self._opened) >= self._limit:
            return fail(OpenStreamError("too many streams wait for the peer"))
        opened: Deferred[Any] = Deferred(self._cancel)
        # When that waits for another Deferred, it can still be cancelled.
        opened.addCallback(lambda openStream: openStream(factory, service))
        self._opened[opened] = None
        return opened

    def _cancel(self, opened: Deferred[Any]) -> None:
        self._opened.pop(opened, None)

    def open(
        self,
        openStream: Callable[
            [IStreamFactory | IProtocolFactory, str | None], Deferred[IProtocol]
        ],
    ) -> None:
        """
        The gate is passed: make the waiting calls, in order.

        @param openStream: opens a stream.
        """
        while self._opened:
            opened = next(iter(self._opened))
            del self._opened[opened]
            opened.callback(openStream)

    def fail(self, reason: GomuxError) -> None:
        """
        The mux has ended, or the peer sends no greeting: let the waiting calls fail.
        """
        while self._opened:
            self._opened.popitem()[0].errback(reason)


class GreetingWait:
    """
    Waits for the greeting of a peer, once a mux, when it is first needed.

    @ivar isOver: whether the peer has sent no greeting in time.
    @ivar _clock: the reactor.
    @ivar _timeout: how long to wait, in seconds.
    @ivar _over: see L{__init__}.
    @ivar _call: the delayed call of the end of the time; C{None} before the wait.
    """

    __slots__ = ("isOver", "_clock", "_timeout", "_over", "_call")

    def __init__(
        self, clock: IReactorTime, limits: Limits, over: Callable[[], None]
    ) -> None:
        """
        @param clock: the reactor.
        @param limits: the limits of the mux.
        @param over: called when the peer has sent no greeting in time.
        """
        self.isOver = False
        self._clock = clock
        self._timeout = limits.greetTimeout
        self._over = over
        self._call: IDelayedCall | None = None

    def begin(self) -> None:
        """
        Begin to wait, unless that has begun before.
        """
        if self._call is None and not self.isOver:
            self._call = self._clock.callLater(self._timeout, self._expire)

    def end(self) -> None:
        """
        The peer's first frame has come, or the mux has ended.
        """
        call, self._call = self._call, None
        if call is not None:
            call.cancel()

    def _expire(self) -> None:
        self._call = None
        self.isOver = True
        self._over()
