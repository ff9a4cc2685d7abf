"""
Symbolic terms, and what an attacker can derive from the terms it knows.

Cryptography is perfect here, as in the model of Dolev and Yao.  A term is built from
names by operations.  The only way to take a term apart is the operation's own inverse:
a pair falls into its parts, and what is sealed opens to its key.  Equal terms are the
same number, so that comparing and hashing them is cheap.
"""

from __future__ import annotations

from collections.abc import Iterable

Term = int

#: Sorts of names: known to all; known to nobody at first; data that must stay secret.
PUBLIC, SECRET, DATA = "public", "secret", "data"
#: Operations.  C{POINT} makes the public key of a scalar.  C{DH} takes two scalars in
#: any order, and can be computed from either one and the point of the other.
PAIR, HASH, HKDF, REKEY, POINT, DH = "pair", "hash", "hkdf", "rekey", "point", "dh"
#: Noise's AEAD: key, associated data, plaintext.  No key seals two messages in this
#: handshake, so that the nonce is always 0.
AEAD = "aead"
#: A sealed v1 frame: key, nonce prefix, counter, kind (ID and flags), payload.  All but
#: key and payload is the header, which is in the clear and authenticated.
FRAME = "frame"

_made: list[tuple[str, tuple[Term, ...]]] = []
_texts: dict[Term, str] = {}
_index: dict[tuple[str, tuple[Term, ...] | str], Term] = {}


def make(operation: str, *parts: Term) -> Term:
    """
    @return: the term that an operation makes of other terms.
    """
    if operation == DH:
        parts = tuple(sorted(parts))
    term = _index.setdefault((operation, parts), len(_made))
    if term == len(_made):
        _made.append((operation, parts))
    return term


def name(sort: str, text: str) -> Term:
    term = _index.setdefault((sort, text), len(_made))
    if term == len(_made):
        _made.append((sort, ()))
        _texts[term] = text
    return term


def public(text: object) -> Term:
    return name(PUBLIC, str(text))


def textOf(term: Term) -> str:
    """
    @return: the text of a name.
    """
    return _texts[term]


def take(operation: str, term: Term | None) -> tuple[Term, ...] | None:
    """
    @return: the parts of a term if this operation has made it, otherwise C{None}.
    """
    made, parts = _made[term] if term is not None else ("", ())
    return parts if made == operation else None


class Knowledge:
    """
    All that can be derived from some terms.

    @ivar opened: these terms, and all that taking them apart gave.
    @ivar data: the secret data among it.
    """

    def __init__(self, terms: Iterable[Term], oracle: Term | None = None) -> None:
        """
        @param oracle: a key under which somebody seals any payload on request, in a
            frame with any header.  It does not become known by that.
        """
        self.opened: set[Term] = set()
        self._oracle = oracle
        self._derived: dict[Term, bool] = {}
        locked: list[tuple[Term, Term]] = []
        new = list(terms)
        while new:
            while new:
                term = new.pop()
                if term not in self.opened:
                    self.opened.add(term)
                    operation, parts = _made[term]
                    if operation == PAIR:
                        new += parts
                    elif operation in (AEAD, FRAME):
                        locked.append((parts[0], parts[-1]))
            self._derived.clear()
            new = [content for key, content in locked if self.derives(key)]
            locked = [pair for pair in locked if not self.derives(pair[0])]
        self.data = {term for term in self.opened if _made[term][0] == DATA}

    def derives(self, term: Term) -> bool:
        """
        @return: whether a term is known, or can be built from what is known.
        """
        if term in self.opened:
            return True
        if term not in self._derived:
            self._derived[term] = self._builds(*_made[term])
        return self._derived[term]

    def _builds(self, operation: str, parts: tuple[Term, ...]) -> bool:
        if not parts:
            return operation == PUBLIC
        if operation == DH:
            a, b = (self.derives(part) for part in parts)
            aPoint, bPoint = (self.derives(make(POINT, part)) for part in parts)
            return (a and bPoint) or (b and aPoint)
        if operation == FRAME and parts[0] == self._oracle:
            parts = parts[1:]
        return all(map(self.derives, parts))
