# -*- test-case-name: gomux.test.mux.test_gate -*-
# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
The gate of a mux: what the peer has to show before the mux is open to it.

Each mux has a gate, which its factory makes.  The gate opens the first frames that
come, until it is passed; then it hands on what opens all further frames, and is gone.
There are three:

  - L{KnownKey<gomux._wire.keyring.KnownKey>}: compatible mode with one key.  This side
    may send at once; the first genuine frame shows that the peer holds the key.
  - L{KeyFinder<gomux._wire.keyring.KeyFinder>}: compatible mode, a server with several
    keys.  It can send nothing before the first frame shows which key the peer has.
  - L{Handshake<gomux._wire.strict.Handshake>}: strict mode.  Only the frames of the
    handshake are sent before it is done.

While a gate lets nothing be sent, calls of C{openStream()} wait, in L{WaitingStreams}.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from twisted.internet.defer import Deferred, fail
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IProtocol, IProtocolFactory
from twisted.python.failure import Failure

from gomux._wire.crypto import Sealer
from gomux._wire.frame import FrameOpener
from gomux.error import GomuxError, NotAuthenticated, OpenStreamError, Truncated

if TYPE_CHECKING:
    from gomux.interfaces import IStreamFactory


class Gate(FrameOpener, Protocol):
    """
    What opens the first frames of a mux, until it is passed.

    C{open} may raise L{NotYet<gomux._wire.frame.NotYet>} if it has more to do than
    others in the reactor should wait for.  The mux then offers the same frame again in
    a later turn of the reactor, as often as it takes.
    """

    @property
    def ownsFrames(self) -> bool:
        """
        Whether the frames that the gate opens are its own: they mean nothing to the
        mux.
        """

    @property
    def passed(self) -> bool:
        """
        Whether the peer has shown what it has to.
        """

    @property
    def name(self) -> str:
        """
        The name of the peer's key, once C{passed}.
        """

    @property
    def sealer(self) -> Sealer | None:
        """
        Seals the mux's frames.  C{None} as long as only the gate's own may be sent; at
        the latest there is one once C{passed}.
        """

    @property
    def opener(self) -> FrameOpener:
        """
        What opens all further frames, once C{passed}.
        """

    def takeOutput(self) -> bytes:
        """
        @return: the gate's frames to send now, often none.  Called at the start, and
            after each frame that was opened.
        """

    def interrupted(self, detail: str) -> GomuxError:
        """
        @param detail: the carrier's error, as a sentence, or C{""}.
        @return: what it means that the carrier ends before the gate is passed.
        """

    def close(self) -> None:
        """
        The gate is passed, or the mux has ended: the gate is not needed any more.
        """


def explainLoss(gate: Gate | None, loss: Failure) -> GomuxError:
    """
    @param gate: the gate, if it is not passed.
    @param loss: why the carrier is gone.
    @return: what it means that the carrier ended by itself.
    """
    if gate is None:
        return Truncated(loss.getErrorMessage())
    if loss.check(ConnectionDone):
        return gate.interrupted("")
    # Such as a certificate that TLS did not accept.
    error = gate.interrupted(f" The carrier's own error: {loss.getErrorMessage()}")
    if isinstance(error, NotAuthenticated):
        error.carrierError = loss.value
    return error


class WaitingStreams:
    """
    The calls of C{openStream()} that wait for the gate to be passed, in order.

    @ivar _factories: what each call was given, by what it returned.
    """

    def __init__(self, limit: int) -> None:
        """
        @param limit: how many calls may wait.
        """
        self._limit = limit
        self._factories: dict[
            Deferred[IProtocol], IStreamFactory | IProtocolFactory
        ] = {}

    def add(self, factory: IStreamFactory | IProtocolFactory) -> Deferred[IProtocol]:
        """
        Let a call wait.

        @return: what the call returns.  It may be cancelled.  Fails with
            L{OpenStreamError} if too many wait.
        """
        if len(self._factories) >= self._limit:
            return fail(OpenStreamError("too many streams wait for the peer"))
        opened: Deferred[IProtocol] = Deferred(self._cancel)
        self._factories[opened] = factory
        return opened

    def _cancel(self, opened: Deferred[IProtocol]) -> None:
        self._factories.pop(opened, None)

    def open(
        self,
        openStream: Callable[[IStreamFactory | IProtocolFactory], Deferred[IProtocol]],
    ) -> None:
        """
        The gate is passed.

        @param openStream: opens a stream.
        """
        while self._factories:
            opened = next(iter(self._factories))
            openStream(self._factories.pop(opened)).chainDeferred(opened)

    def fail(self, reason: GomuxError) -> None:
        """
        The mux has ended.
        """
        while self._factories:
            self._factories.popitem()[0].errback(reason)
