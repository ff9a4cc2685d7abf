"""
The two roles of strict mode, version 2, as C{docs/strict.rst} specifies them: what a
side sends, what it accepts, and what it keeps in its memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache
from typing import NamedTuple

from interop.strictmodel import terms
from interop.strictmodel.terms import (
    AEAD,
    FRAME,
    HASH,
    HKDF,
    PAIR,
    POINT,
    REKEY,
    Term,
    make,
    name,
    public,
    take,
    textOf,
)

#: The key of v1 frames, made from the pre-shared key; Noise's psk is made from it.
K = name(terms.SECRET, "K")
NOISE_PSK = make(HASH, K, public("gomux strict psk"))
NO_KEY = public("no key")
EMPTY = public("")
NOISE_NAME = public("Noise_NNpsk0_25519_ChaChaPoly_BLAKE2b")

HELLO, GREETING = public("hello"), public("greeting")
KEEPALIVE, STREAM, CLOSE = public("Keepalive"), public("Data"), public("CloseMux")


@dataclass(frozen=True)
class Rules:
    """
    The rules of the protocol.  The defaults are strict mode, version 2; any other value
    is a weakening.
    """

    #: The prologue has the context; it has who sends which message.
    context: bool = True
    roles: bool = True
    #: The hash of all that was said is the associated data of Noise's AEAD.
    transcript: bool = True
    #: Noise mixes in the psk; it mixes in the DH of the two ephemerals.
    psk: bool = True
    dh: bool = True
    #: The hellos are sealed under the PSK's key, as v1 frames are.
    outerSeal: bool = True
    #: The client's key for the DH is made for one handshake; the server's is; they are
    #: forgotten after it.
    freshClient: bool = True
    freshServer: bool = True
    forgotten: bool = True
    #: The bits are in the hello, not in a greeting as in compatible mode.
    bitsInside: bool = True
    #: A side refuses a hello under a prefix that its process sent; that this has seen.
    ownHello: bool = True
    seen: bool = True
    #: The server sends no frame before the client's first under the new key.
    serverWaits: bool = True
    #: The frames are sealed under keys of this session; one for each direction.
    sessionKeys: bool = True
    twoKeys: bool = True
    #: The frames must have the prefix of the peer's hello, and the counter that is due.
    prefix: bool = True
    counter: str = "exact"
    #: The key changes after some frames; no key of before is kept.
    rekey: bool = True
    oldKeysGone: bool = True
    #: What is taken for an orderly end though it is not sealed.
    ends: tuple[str, ...] = ()


class Phase(IntEnum):
    IDLE = 0
    #: The client has sent its hello; the server has answered one.
    HALF = 1
    UP = 2
    CLOSED = 3


class Party(NamedTuple):
    """
    What a session is configured with.  Its process can have other sessions too.

    @ivar announces: the bits in its hello, and the time stamp.
    """

    name: str
    isClient: bool
    process: str
    context: str
    announces: str

    @property
    def bits(self) -> Term:
        return public(f"bits {self.announces}")

    @property
    def prefix(self) -> Term:
        return public(f"prefix of {self.name}")

    def data(self, n: int) -> Term:
        return name(terms.DATA, f"data {n} of {self.name}")


class Session(NamedTuple):
    """
    What a side has done.

    @ivar sent: its hello, and then its frames.
    @ivar received: the frames that it has accepted after the hello.
    @ivar hello: the hello that it has accepted.
    @ivar transcript: Noise's hash after the handshake.
    @ivar announced: the bits that it takes for its peer's.
    @ivar sendKey: the key 0 of its own direction; C{receiveKey}, of the other.
    """

    phase: Phase = Phase.IDLE
    sent: tuple[Term, ...] = ()
    received: tuple[Term, ...] = ()
    hello: Term | None = None
    transcript: Term | None = None
    announced: Term | None = None
    sendKey: Term = NO_KEY
    receiveKey: Term = NO_KEY

    @property
    def awaitsHello(self) -> bool:
        return self.hello is None


class Hello(NamedTuple):
    prefix: Term
    point: Term
    sealed: Term
    bits: Term


def hkdf(ck: Term, data: Term, output: int) -> Term:
    return make(HKDF, ck, data, public(output))


class Noise(NamedTuple):
    """
    Noise's SymmetricState.
    """

    ck: Term = NOISE_NAME
    h: Term = NOISE_NAME
    k: Term | None = None

    def mixHash(self, data: Term) -> Noise:
        return self._replace(h=make(HASH, self.h, data))

    def mixKey(self, data: Term) -> Noise:
        return self._replace(ck=hkdf(self.ck, data, 1), k=hkdf(self.ck, data, 2))

    def mixKeyAndHash(self, data: Term) -> Noise:
        mixed = self.mixHash(hkdf(self.ck, data, 2))
        return mixed._replace(ck=hkdf(self.ck, data, 1), k=hkdf(self.ck, data, 3))


class Protocol:
    """
    The protocol under some rules.  It has no state.  Its methods take a L{Session}, and
    return the session after a step, or C{None} where the side would end the mux.
    """

    def __init__(self, rules: Rules, frames: int, every: int) -> None:
        """
        @param frames: how many frames a side sends before its CloseMux.
        @param every: after how many frames the key changes.
        """
        self.rules, self.frames, self.every = rules, frames, every
        self.ends = frozenset(map(public, rules.ends))
        self.outerKey = K if rules.outerSeal else NO_KEY
        self.firstHello = lru_cache(maxsize=None)(self._firstHello)
        self.afterHello = lru_cache(maxsize=None)(self._afterHello)
        self.receiving = lru_cache(maxsize=None)(self._receiving)

    # The handshake.

    def _isFresh(self, party: Party) -> bool:
        return self.rules.freshClient if party.isClient else self.rules.freshServer

    def _scalar(self, party: Party) -> Term:
        owner = party.name if self._isFresh(party) else party.process
        return name(terms.SECRET, f"scalar of {owner}")

    def _mixPoint(self, noise: Noise, point: Term) -> Noise:
        noise = noise.mixHash(point)
        return noise.mixKey(point) if self.rules.psk else noise

    def _first(self, party: Party, point: Term) -> Noise:
        """
        The prologue, and the tokens C{psk, e} of the first message.
        """
        label = "version 2, client first" if self.rules.roles else "version 2"
        context = party.context if self.rules.context else "any context"
        noise = Noise().mixHash(make(PAIR, public(label), public(context)))
        if self.rules.psk:
            noise = noise.mixKeyAndHash(NOISE_PSK)
        return self._mixPoint(noise, point)

    def _second(self, noise: Noise, point: Term, mine: Term, theirs: Term) -> Noise:
        """
        The tokens C{e, ee} of the second message.
        """
        noise = self._mixPoint(noise, point)
        (scalar,) = take(POINT, theirs) or (EMPTY,)
        return noise.mixKey(make(terms.DH, mine, scalar)) if self.rules.dh else noise

    def _seal(self, noise: Noise, payload: Term) -> Term:
        if noise.k is None:
            return payload
        return make(AEAD, noise.k, noise.h if self.rules.transcript else EMPTY, payload)

    def _open(self, noise: Noise, sealed: Term) -> Term | None:
        payload = sealed if noise.k is None else (take(AEAD, sealed) or (EMPTY,))[-1]
        return payload if self._seal(noise, payload) == sealed else None

    def wrap(self, prefix: Term, message: Term) -> Term:
        return make(FRAME, self.outerKey, prefix, public(0), HELLO, message)

    def _write(self, party: Party, noise: Noise, point: Term) -> tuple[Term, Noise]:
        """
        @return: a hello, and Noise's state after it.
        """
        payload = party.bits if self.rules.bitsInside else EMPTY
        sealed = self._seal(noise, payload)
        hello = self.wrap(party.prefix, make(PAIR, point, sealed))
        if not self.rules.bitsInside:
            greeting = make(FRAME, K, party.prefix, public(1), GREETING, party.bits)
            hello = make(PAIR, hello, greeting)
        return hello, noise.mixHash(sealed)

    def read(self, hello: Term | None) -> Hello | None:
        """
        @return: what is in a hello, if it is well-formed.
        """
        bits = EMPTY
        if not self.rules.bitsInside:
            hello, greeting = take(PAIR, hello) or (EMPTY, EMPTY)
            key, _, _, kind, bits = take(FRAME, greeting) or (EMPTY,) * 5
            if (key, kind) != (K, GREETING):
                return None
        key, prefix, counter, kind, message = take(FRAME, hello) or (EMPTY,) * 5
        halves = take(PAIR, message)
        if (key, counter, kind) != (self.outerKey, public(0), HELLO) or not halves:
            return None
        isPoint = take(POINT, halves[0])
        return Hello(prefix, halves[0], halves[1], bits) if isPoint else None

    def _firstHello(self, party: Party) -> tuple[Term, Noise]:
        """
        @return: a client's hello, and Noise's state after it.
        """
        point = make(POINT, self._scalar(party))
        return self._write(party, self._first(party, point), point)

    def _afterHello(self, party: Party, message: Term) -> Session | None:
        """
        @return: the session after the peer's hello.  A server has sent its own by then.
        """
        hello = self.read(message)
        if hello is None:
            return None
        mine = self._scalar(party)
        point = make(POINT, mine)
        if party.isClient:
            sent, noise = self.firstHello(party)
            noise = self._second(noise, hello.point, mine, hello.point)
        else:
            noise = self._first(party, hello.point)
        payload = self._open(noise, hello.sealed)
        if payload is None:
            return None
        noise = noise.mixHash(hello.sealed)
        if not party.isClient:
            noise = self._second(noise, point, mine, hello.point)
            sent, noise = self._write(party, noise, point)
        keys = [hkdf(noise.ck, EMPTY, 1), hkdf(noise.ck, EMPTY, 2)]
        if not self.rules.twoKeys:
            keys[1] = keys[0]
        if not self.rules.sessionKeys:
            keys = [K, K]
        return Session(
            Phase.UP if party.isClient else Phase.HALF,
            (sent,),
            (),
            message,
            noise.h,
            payload if self.rules.bitsInside else hello.bits,
            *(keys if party.isClient else keys[::-1]),
        )

    # After the handshake.

    def keyAt(self, key: Term, counter: int) -> Term:
        """
        @return: the key of the frame with a counter.
        """
        if self.rules.rekey and self.rules.sessionKeys:
            for _ in range(counter // self.every):
                key = make(REKEY, key)
        return key

    def frame(self, key: Term, prefix: Term, n: int, kind: Term, payload: Term) -> Term:
        return make(FRAME, self.keyAt(key, n), prefix, public(n), kind, payload)

    def sending(self, party: Party, session: Session) -> Session | None:
        """
        @return: the session after the frame that a side may send next, if any.
        """
        early = not party.isClient and not self.rules.serverWaits
        if session.phase != Phase.UP and not (early and session.phase == Phase.HALF):
            return None
        n = len(session.sent) - 1
        phase: Phase = session.phase
        kind, payload = STREAM, party.data(n)
        if n == self.frames:
            kind, payload, phase = CLOSE, EMPTY, Phase.CLOSED
        elif n == 0 and party.isClient:
            kind, payload = KEEPALIVE, EMPTY
        frame = self.frame(session.sendKey, party.prefix, n, kind, payload)
        return session._replace(phase=phase, sent=(*session.sent, frame))

    def counterDue(self, session: Session) -> int:
        parts = take(FRAME, session.received[-1]) if session.received else None
        return int(textOf(parts[2])) + 1 if parts else 0

    def _receiving(self, party: Party, session: Session, frame: Term) -> Session | None:
        """
        @return: the session after a frame.
        """
        after = session._replace(received=(*session.received, frame))
        if frame in self.ends and session.phase == Phase.UP:
            return after._replace(phase=Phase.CLOSED)
        parts = take(FRAME, frame)
        if parts is None or session.phase not in (Phase.HALF, Phase.UP):
            return None
        key, prefix, counter, kind, _ = parts
        n, due = int(textOf(counter)), self.counterDue(session)
        hello = self.read(session.hello)
        if (
            len(session.received) > self.frames
            or key != self.keyAt(session.receiveKey, n)
            or kind in (HELLO, GREETING)
            or (kind != KEEPALIVE and session.phase == Phase.HALF)
            or (self.rules.prefix and hello and prefix != hello.prefix)
            or (self.rules.counter == "exact" and n != due)
            or (self.rules.counter == "growing" and n < due)
        ):
            return None
        return after._replace(phase=Phase.CLOSED if kind == CLOSE else Phase.UP)

    # What a side has in its memory.

    def kept(self, party: Party) -> frozenset[Term]:
        """
        @return: the secrets that outlive the handshake and the session.
        """
        gone = self._isFresh(party) and self.rules.forgotten
        return frozenset() if gone else frozenset({self._scalar(party)})

    def lastCounters(self, session: Session) -> Iterator[tuple[Term, int]]:
        """
        @return: for both directions, key 0 and the counter of the last frame.
        """
        yield session.sendKey, max(0, len(session.sent) - 2)
        yield session.receiveKey, max(0, len(session.received) - 1)

    def held(self, party: Party, session: Session) -> frozenset[Term]:
        """
        @return: the secrets of a session that is up: what it has kept, and its keys.  A
            key goes with the first frame under the next one, at the latest.
        """
        held = {self.keyAt(*last) for last in self.lastCounters(session)}
        if not self.rules.oldKeysGone:
            held |= {session.sendKey, session.receiveKey}
        return self.kept(party) | held

    def oldKeys(self, session: Session) -> Iterator[Term]:
        """
        @return: the keys of a session that is up from before its last rekeys.
        """
        for key, n in self.lastCounters(session):
            for counter in range(0, n - n % self.every, self.every):
                yield self.keyAt(key, counter)
