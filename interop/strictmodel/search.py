"""
The attacker, the exhaustive search of all that it and the parties can do, breadth
first, and the properties that must hold in each state.

The attacker is the carrier.  It reads all that is sent, and nothing arrives but what it
delivers: anything recorded, from anywhere, and anything that it can make.  A peer in
compatible mode helps it, and seals any payload under the PSK's key, in any frame.

To lose the carrier, or to refuse a message, is no step.  The session has ended then,
and does nothing more.  The search has the same state with a session that still could.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import product

from interop.strictmodel import terms
from interop.strictmodel.roles import (
    CLOSE,
    EMPTY,
    GREETING,
    HELLO,
    KEEPALIVE,
    STREAM,
    K,
    Party,
    Phase,
    Protocol,
    Rules,
    Session,
)
from interop.strictmodel.terms import (
    FRAME,
    PAIR,
    POINT,
    Knowledge,
    Term,
    make,
    name,
    public,
    take,
    textOf,
)

State = tuple[Session, ...]

ATTACKER = "the attacker"
#: What the attacker has from the start: a scalar of its own.
OWN = frozenset({name(terms.SECRET, f"scalar of {ATTACKER}")})

#: The properties: a name, and what it says of each session in each state.
PROPERTIES = {
    "agreement": "a session that is up has a peer: one of the other role, with the same"
    " transcript and context",
    "injectivity": "its peer is no other session's peer, and it has no other peer",
    "own process": "its peer is in another process",
    "features": "it takes those bits for its peer's that its peer has sent",
    "freshness": "it has accepted its peer's frames from the first on, in order, each"
    " once, and no other",
    "truncation": "it has seen an orderly end only where its peer has sent it",
    "confirmation": "a server has sent frames, or is up, only if its client is up",
    "secrecy": "the attacker cannot derive data",
    "forward secrecy": "nor can it with the PSK and all that is kept when all sessions"
    " have ended",
    "rekeying": "nor, with the PSK and the present keys of a session, that session's"
    " keys from before a rekey",
}


@dataclass(frozen=True)
class Setup:
    """
    The parties of a search, and its bound.

    @ivar frames: how many frames a side sends before its CloseMux.
    @ivar every: after how many frames the keys change.
    """

    name: str
    parties: tuple[Party, ...]
    frames: int
    every: int = 2


@dataclass
class Result:
    """
    @ivar broken: the property that does not hold; empty if all hold.
    @ivar trace: the steps that lead there, and what is wrong then.
    @ivar complete: the sessions that can reach an orderly end.
    """

    states: int = 0
    steps: int = 0
    broken: str = ""
    trace: list[str] = field(default_factory=list)
    complete: set[str] = field(default_factory=set)


class Search:
    def __init__(self, rules: Rules, setup: Setup) -> None:
        self._protocol = Protocol(rules, setup.frames, setup.every)
        self._parties = setup.parties
        self._knowledge: dict[tuple[frozenset[Term], frozenset[Term]], Knowledge] = {}
        self._sessions: dict[Session, Session] = {}
        #: Whose a message is, for the traces.
        self._origins = {end: textOf(end) for end in self._protocol.ends}

    def _pairs(self, state: State) -> Iterator[tuple[Party, Session]]:
        return zip(self._parties, state, strict=True)

    def run(self, only: str = "") -> Result:
        """
        @param only: a property; go on where another one does not hold.
        """
        result = Result(states=1)
        start: State = tuple(Session() for _ in self._parties)
        reached: dict[State, tuple[State, str] | None] = {start: None}
        waiting = deque([start])
        while waiting:
            state = waiting.popleft()
            for after, what in self._steps(state):
                result.steps += 1
                if after in reached:
                    continue
                reached[after] = state, what
                result.states += 1
                for broken, why in self._broken(after):
                    if only in ("", broken):
                        result.broken, result.trace = broken, [f"so {why}"]
                        step = reached[after]
                        while step:
                            result.trace.insert(0, step[1])
                            step = reached[step[0]]
                        return result
                result.complete |= {
                    party.name
                    for party, session in self._pairs(after)
                    if session.received and isEnd(session.received[-1])
                }
                waiting.append(after)
        return result

    # The steps.

    def _steps(self, state: State) -> Iterator[tuple[State, str]]:
        """
        All steps that the parties and the attacker can do next.
        """
        protocol, recorded = self._protocol, self._recorded(state)
        knows = self._knows(recorded, OWN)
        for i, (party, session) in enumerate(self._pairs(state)):

            def moved(to: Session, i: int = i) -> State:
                return (*state[:i], self._sessions.setdefault(to, to), *state[i + 1 :])

            if session.phase == Phase.IDLE and party.isClient:
                hello, _ = protocol.firstHello(party)
                after = session._replace(phase=Phase.HALF, sent=(hello,))
                yield moved(after), self._sends(party, after)
                continue
            sending = protocol.sending(party, session)
            if sending:
                yield moved(sending), self._sends(party, sending)
            for message in recorded.union(self._made(party, session, knows)):
                accepted = self._accepted(state, party, session, message)
                if accepted:
                    what = self._origins.get(message, "a message of its own making")
                    said = f"the attacker delivers {what} to {party.name}"
                    if session.phase == Phase.IDLE:
                        said += f"; {self._sends(party, accepted)}"
                    yield moved(accepted), said

    def _sends(self, party: Party, session: Session) -> str:
        n = len(session.sent) - 2
        what = f"frame {n}" if n >= 0 else "hello"
        self._origins.setdefault(session.sent[-1], f"{party.name}'s {what}")
        return f"{party.name} sends its {what}"

    def _accepted(
        self, state: State, party: Party, session: Session, message: Term
    ) -> Session | None:
        protocol = self._protocol
        if not session.awaitsHello:
            return protocol.receiving(party, session, message)
        hello, accepted = protocol.read(message), protocol.afterHello(party, message)
        for other, its in self._pairs(state):
            if accepted and hello and other.process == party.process:
                seen = protocol.read(its.hello)
                if seen and protocol.rules.seen and seen.prefix == hello.prefix:
                    return None
                if protocol.rules.ownHello and other.prefix == hello.prefix:
                    return None
        return accepted

    # The attacker.

    @staticmethod
    def _recorded(state: State) -> frozenset[Term]:
        return frozenset(message for session in state for message in session.sent)

    def _knows(self, recorded: frozenset[Term], secrets: frozenset[Term]) -> Knowledge:
        found = self._knowledge.get((recorded, secrets))
        if found is None:
            found = Knowledge(recorded | secrets, oracle=K)
            self._knowledge[recorded, secrets] = found
        return found

    def _made(self, party: Party, session: Session, knows: Knowledge) -> set[Term]:
        """
        @return: what the attacker can make that the session could accept.
        """
        made = self._hellos if session.awaitsHello else self._frames
        return {
            *self._protocol.ends,
            *filter(knows.derives, made(party, session, knows)),
        }

    def _hellos(
        self, party: Party, session: Session, knows: Knowledge
    ) -> Iterator[Term]:
        protocol = self._protocol
        me = Party(ATTACKER, not party.isClient, ATTACKER, party.context, ATTACKER)
        hello, _ = protocol.firstHello(me if me.isClient else party)
        if me.isClient:
            yield hello
        elif answer := protocol.afterHello(me, hello):
            yield from answer.sent
        known: dict[object, set[Term]] = defaultdict(set)
        for term in knows.opened:
            point, sealed = take(PAIR, term) or (term, term)
            if take(POINT, point):
                known[POINT].add(point)
                known[PAIR].add(sealed)
            elif parts := take(FRAME, term):
                known[parts[3]].add(term)
        for point, sealed in product(known[POINT], known[PAIR]):
            yield protocol.wrap(me.prefix, make(PAIR, point, sealed))
        if not protocol.rules.bitsInside:
            for hello, greeting in product(known[HELLO], known[GREETING]):
                yield make(PAIR, hello, greeting)

    def _frames(
        self, party: Party, session: Session, knows: Knowledge
    ) -> Iterator[Term]:
        protocol, hello = self._protocol, self._protocol.read(session.hello)
        prefix, due = hello.prefix if hello else EMPTY, protocol.counterDue(session)
        for kind, payload in KINDS:
            yield protocol.frame(session.receiveKey, prefix, due, kind, payload)

    # The properties.

    def _broken(self, state: State) -> Iterator[tuple[str, str]]:
        """
        @return: each property that does not hold in a state, and why.
        """
        for i in range(len(state)):
            yield from self._disagrees(state, i)
        recorded, protocol = self._recorded(state), self._protocol
        if self._knows(recorded, OWN).data:
            yield "secrecy", "the attacker reads data"
        kept = map(protocol.kept, self._parties)
        if self._knows(recorded, OWN.union({K}, *kept)).data:
            yield "forward secrecy", "data can be read with the PSK and what is kept"
        for party, session in self._pairs(state):
            if session.phase == Phase.UP:
                knows = self._knows(recorded, OWN | protocol.held(party, session) | {K})
                if any(map(knows.derives, protocol.oldKeys(session))):
                    yield "rekeying", f"{party.name} can still derive keys of before"

    def _disagrees(self, state: State, i: int) -> Iterator[tuple[str, str]]:
        party, session = self._parties[i], state[i]
        if session.transcript is None:
            return
        same = [
            pair
            for pair in self._pairs(state)
            if pair[1].transcript == session.transcript and pair[0] != party
        ]
        peers = [pair for pair in same if pair[0].isClient != party.isClient]
        if not party.isClient and not any(s.phase >= Phase.UP for _, s in peers):
            if len(session.sent) > 1 or session.phase != Phase.HALF:
                yield "confirmation", f"{party.name} has sent a frame, or is up, alone"
        if session.phase == Phase.HALF:
            return
        if not peers:
            yield "agreement", f"{party.name} is up without a peer"
        up = [pair for pair in same if pair[1].phase != Phase.HALF]
        if len(up) > 1 or any(pair[0].isClient == party.isClient for pair in up):
            yield "injectivity", f"{party.name} and its peer are no pair"
        for other, its in peers:
            both = f"{party.name} and {other.name}"
            if party.context != other.context:
                yield "agreement", f"{both} are peers with different contexts"
            if party.process == other.process:
                yield "own process", f"{both} are peers in one process"
            if session.announced != other.bits:
                yield "features", f"{party.name} has not the bits of {other.name}"
            if session.received != its.sent[1 : 1 + len(session.received)]:
                kind = "truncation" if isEnd(session.received[-1]) else "freshness"
                yield kind, f"{party.name} takes what {other.name} did not send there"


#: What the attacker puts into frames of its own.
KINDS = ((KEEPALIVE, EMPTY), (STREAM, public("forged")), (CLOSE, EMPTY))


def isEnd(frame: Term) -> bool:
    parts = take(FRAME, frame)
    return parts[3] == CLOSE if parts else True
