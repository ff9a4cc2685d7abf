# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
Tests for L{gomux._wire.peerrules}.
"""

from __future__ import annotations

from dataclasses import FrozenInstanceError, fields
from math import inf
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from gomux import Keyring, PeerRules
from gomux._wire.peerrules import PeerUse, PeerUses


class PeerRulesTests(SynchronousTestCase):
    """
    L{PeerRules}
    """

    def test_values(self) -> None:
        """
        Numbers are greater than 0, and services are a collection of valid names.  Rules
        are values that do not change.
        """
        make: Any = PeerRules
        for field in fields(PeerRules)[1:]:
            for bad in (0, -1):
                error = self.assertRaises(ValueError, make, **{field.name: bad})
                self.assertEqual(str(error), f"{field.name} must be greater than 0")
            self.assertEqual(getattr(make(**{field.name: 1}), field.name), 1)
        self.assertRaises(ValueError, PeerRules, services="chat")
        self.assertRaises(ValueError, PeerRules, services=("chat", "no spaces"))
        names = ["chat", "unnamed"]
        rules = PeerRules(services=names)
        names.append("web")
        self.assertEqual(rules, PeerRules(services={"unnamed", "chat"}))
        self.assertEqual(hash(rules), hash(PeerRules(services=("chat", "unnamed"))))
        with self.assertRaises(FrozenInstanceError):
            rules.maxMuxes = 5  # type: ignore[misc]

    def test_over(self) -> None:
        """
        Each rule that is not set is that of the others, also where the own rule allows
        nothing.
        """
        others = PeerRules(("web",), 1, 2, 3, 4)
        self.assertEqual(PeerRules().over(others), others)
        own = PeerRules(services=(), maxStreams=20)
        self.assertEqual(own.over(others), PeerRules((), 1, 20, 3, 4))
        self.assertEqual(own.over(PeerRules()), own)


class PeerUsesTests(SynchronousTestCase):
    """
    L{PeerUse} and L{PeerUses}
    """

    def test_services(self) -> None:
        """
        A peer may use the services in its rule, and everything without one.
        """
        use = PeerUse("alice")
        self.assertTrue(use.mayUse("web") and use.mayUse(None))
        use.follow(PeerRules(services=("web",)))
        self.assertTrue(use.mayUse("web"))
        self.assertFalse(use.mayUse("chat") or use.mayUse(None))
        use.follow(PeerRules(services=("unnamed",)))
        self.assertTrue(use.mayUse(None))
        self.assertFalse(use.mayUse("web") or use.mayUse("unnamed2"))
        use.follow(PeerRules(services=()))
        self.assertFalse(use.mayUse("web") or use.mayUse(None))

    def test_everybody(self) -> None:
        """
        The rules for C{"*"} hold for each peer without such a rule of its own: also for
        the peer of a key without a name, and whatever came first, the rules or the
        peer.
        """
        keyring = Keyring({"alice": "the key of alice", "bob": "the key of bob"})
        alice, nameless = keyring.uses["alice"], keyring.uses[""]
        self.assertIs(keyring.uses["alice"], alice)
        self.assertEqual((alice.rules, alice.maxBuffered), (PeerRules(), inf))
        keyring.rules = {
            "alice": PeerRules(maxStreams=3, maxBuffered=700),
            "*": PeerRules(services=("web",), maxStreams=9),
        }
        bob = keyring.uses["bob"]
        self.assertEqual(alice.rules.maxStreams, 3)
        self.assertFalse(alice.mayUse("chat"))
        self.assertEqual(alice.maxBuffered, 700)
        for use in (bob, nameless):
            self.assertEqual(use.rules.maxStreams, 9)
            self.assertEqual(use.maxBuffered, inf)
            self.assertFalse(use.mayUse("chat"))
        keyring.rules = {}
        self.assertEqual(keyring.rules, {})
        for use in (alice, bob, nameless):
            self.assertEqual((use.rules, use.maxBuffered), (PeerRules(), inf))

    def test_own(self) -> None:
        """
        The rules are a copy of those that were set, and cannot be changed in place, as
        that would have no effect.
        """
        keyring = Keyring({"alice": "the key of alice"})
        rules = {"alice": PeerRules(maxStreams=3)}
        keyring.rules = rules
        rules["alice"] = PeerRules()
        self.assertEqual(keyring.rules["alice"].maxStreams, 3)
        with self.assertRaises(TypeError):
            keyring.rules["alice"] = PeerRules()

    def test_connections(self) -> None:
        """
        The connections of each peer are counted by themselves, and those that no peer
        causes are not counted.
        """
        uses = PeerUses()
        uses.rules = {"*": PeerRules(maxConnections=2)}
        for peer in ("alice", "alice", "bob", None, None, None):
            self.assertTrue(uses.mayTake(peer))
            uses.take(peer)
        self.assertFalse(uses.mayTake("alice"))
        self.assertTrue(uses.mayTake("bob") and uses.mayTake(None))
        self.assertEqual(
            uses.refusal("alice", "connections"), "'alice' has 2 connections already"
        )
        uses.giveBack(None)
        uses.giveBack("alice")
        self.assertTrue(uses.mayTake("alice"))
        self.assertEqual(uses["alice"].connections, 1)
