"""
The exhaustive search of a model of strict mode: see L{interop.strictmodel}.
"""

from __future__ import annotations

from contextlib import redirect_stdout
from dataclasses import fields, replace
from io import StringIO
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from interop.strictmodel import __main__, terms
from interop.strictmodel.roles import Rules
from interop.strictmodel.search import PROPERTIES
from interop.strictmodel.terms import Knowledge, make, name, public
from interop.strictmodel.weakenings import WEAKENINGS, search


class StrictModelTests(SynchronousTestCase):
    """
    The search of the protocol and of its weakenings
    """

    def found(self, breaks: bool, frames: int) -> dict[str, str]:
        """
        @param breaks: which weakenings: those that break a property, or the others.
        @return: for each of them, the property that the search finds broken.
        """
        found = {}
        for weak, (expected, rules) in WEAKENINGS.items():
            if bool(expected) == breaks:
                *_, (_, result) = search(rules, expected, 2, frames)
                found[weak] = result.broken
        return found

    def test_holds(self) -> None:
        """
        No property is broken within the default bound.  Each session can get as far as
        an orderly end, so that the properties are not idle.
        """
        states = 0
        for setup, result in search(Rules(), "", 2, 3):
            states += result.states
            self.assertEqual((result.broken, result.trace), ("", []), setup.name)
            self.assertEqual(
                result.complete, {party.name for party in setup.parties}, setup.name
            )
        self.assertGreater(states, 100_000)

    def test_weakenings(self) -> None:
        """
        The search finds the attack that each weakening makes possible.
        """
        found = self.found(breaks=True, frames=3)
        self.assertGreaterEqual(len(found), 10)
        self.assertEqual(found, {weak: WEAKENINGS[weak][0] for weak in found})

    def test_harmless(self) -> None:
        """
        The weakenings for which there is a second defence break nothing.
        """
        found = self.found(breaks=False, frames=2)
        self.assertEqual(found, dict.fromkeys(found, ""))

    def test_bothNeeded(self) -> None:
        """
        Where a weakening changes two rules, one of them alone does not break the same
        property.
        """
        pairs = 0
        for expected, rules in WEAKENINGS.values():
            changed = [
                rule
                for rule in fields(Rules)
                if getattr(rules, rule.name) != rule.default
            ]
            if len(changed) == 1:
                continue
            pairs += 1
            for rule in changed:
                restored: dict[str, Any] = {rule.name: rule.default}
                *_, (_, result) = search(replace(rules, **restored), expected, 2, 2)
                self.assertEqual(result.broken, "", restored)
        self.assertEqual(pairs, 3)

    def test_eachPropertyFails(self) -> None:
        """
        For each property there is a weakening that breaks it, and for each rule there
        is one that changes it.
        """
        self.assertEqual(
            {breaks for breaks, _ in WEAKENINGS.values()} - {""}, {*PROPERTIES}
        )
        changed = {
            rule.name
            for rule in fields(Rules)
            for _, rules in WEAKENINGS.values()
            if getattr(rules, rule.name) != rule.default
        }
        self.assertEqual(changed, {rule.name for rule in fields(Rules)})

    def test_trace(self) -> None:
        """
        The command prints the attack.  It fails if it finds none where one is expected.
        """
        with redirect_stdout(StringIO()) as output:
            self.assertEqual(__main__.main(["--weak", "no-context"]), 0)
        self.assertIn(
            "     1 client 1 sends its hello\n"
            "     2 the attacker delivers client 1's hello to server 2;"
            " server 2 sends its hello\n"
            "     3 the attacker delivers server 2's hello to client 1\n"
            "     4 so client 1 and server 2 are peers with different contexts\n"
            "  broken: agreement",
            output.getvalue(),
        )
        self.patch(__main__, "WEAKENINGS", {"none": ("agreement", Rules())})
        with redirect_stdout(StringIO()) as output:
            arguments = ["--weak", "none", "--bound", "1", "1"]
            self.assertEqual(__main__.main(arguments), 1)
        self.assertIn("not as expected: none", output.getvalue())


class KnowledgeTests(SynchronousTestCase):
    """
    What an attacker derives from terms
    """

    key = name(terms.SECRET, "a key")
    data = name(terms.DATA, "some data")

    def test_sealed(self) -> None:
        """
        What is sealed opens to its key, also to one found later, and to no other.
        """
        sealed = make(terms.AEAD, self.key, public("header"), self.data)
        frame = make(
            terms.FRAME, public("no key"), *map(public, ("prefix", 0, "Data")), self.key
        )
        other = name(terms.SECRET, "another key")
        self.assertEqual(Knowledge([sealed, other]).data, set())
        self.assertEqual(Knowledge([sealed, self.key]).data, {self.data})
        self.assertEqual(Knowledge([sealed, frame]).data, {self.data})

    def test_oneWay(self) -> None:
        """
        A hash can be computed, and cannot be inverted; neither can a rekey.
        """
        for operation in (terms.HASH, terms.REKEY, terms.POINT):
            image = make(operation, self.key)
            self.assertFalse(Knowledge([image]).derives(self.key))
            self.assertTrue(Knowledge([self.key]).derives(image))

    def test_dh(self) -> None:
        """
        A DH can be computed with either scalar and the point of the other, and not with
        two points.
        """
        a, b = (name(terms.SECRET, text) for text in "ab")
        shared, ofA, ofB = (
            make(terms.DH, a, b),
            make(terms.POINT, a),
            make(terms.POINT, b),
        )
        self.assertEqual(make(terms.DH, b, a), shared)
        self.assertTrue(Knowledge([a, ofB]).derives(shared))
        self.assertTrue(Knowledge([b, ofA]).derives(shared))
        self.assertFalse(Knowledge([ofA, ofB]).derives(shared))
        self.assertFalse(Knowledge([a, ofA]).derives(shared))

    def test_oracle(self) -> None:
        """
        The oracle seals what the attacker knows, opens nothing, and keeps its key.
        """
        header = [*map(public, ("prefix", 0, "Data"))]
        frame = make(terms.FRAME, self.key, *header, self.data)
        known = make(terms.FRAME, self.key, *header, public("text"))
        knows = Knowledge([frame], oracle=self.key)
        self.assertEqual(knows.data, set())
        self.assertFalse(knows.derives(self.key))
        self.assertTrue(knows.derives(known))
        self.assertFalse(Knowledge([], oracle=self.key).derives(frame))
