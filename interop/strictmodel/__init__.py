"""
A model of strict mode, version 2, that is searched exhaustively to a bound.

The tests try attacks that somebody thought of.  The search tries all that the model
knows.  Run it from the top of the checkout::

    python -m interop.strictmodel                   strict mode as it is
    python -m interop.strictmodel --weak NAME       with a weakening
    python -m interop.strictmodel --all             as it is, and with each weakening
    python -m interop.strictmodel --bound 2 4       2 sessions a role, 4 frames a side

L{terms} has the cryptography and what an attacker derives, L{roles} the protocol as
C{docs/strict.rst} specifies it, L{search} the attacker, the search and the properties,
and L{weakenings} what is searched.

What the model leaves out
=========================

 - Cryptography is perfect.  Terms have no size and take no time, so the search says
   nothing about guessing, side channels, traffic analysis and equal random numbers.
 - The attacker does not hold the PSK while sessions run.  Afterwards it learns the PSK
   and all that the processes keep.  A holder of the PSK can be either side, by design.
 - The sessions and frames are few, and there is one PSK.
 - The attacker makes messages of the forms that a session could accept, with one scalar
   and one prefix of its own.  A session refuses any other message, which is no step.
 - A process remembers the hellos of all its sessions, of which there are few.
 - Frames are Keepalive, Data and CloseMux.  Tests cover streams, windows and pings.
 - The program is not searched.  Tests and a second implementation compare that with
   C{docs/strict.rst}.

Weakenings that break nothing
=============================

Each of these takes one of two defences away.

 - C{no-psk}: the attacker sees no public key, because the hellos are sealed under the
   PSK's key.  C{no-seal}: Noise's psk keeps the attacker out, and the seal only spares
   the server work for strangers.  Without both, C{open-hellos} is an attack.
 - C{no-roles}: Noise mixes more into the second message than into the first, so
   neither side can take its own message for its peer's.  The roles in the prologue
   say so again.
 - C{no-replay-memory}: the server answers a replayed hello, but the client's first
   frame never comes.  The memory spares the server that work.  It would be needed if
   the server's key for the DH were static: C{replayed-hello}.
 - C{no-prefix}: each key belongs to one direction of one session, and counters are
   consecutive, so no other frame opens.  With one key for both directions the prefix is
   needed: C{reflection}.

The time stamp has no weakening.  It stands beside the bits in the hello, and is as
genuine as they are.  What C{--strict-clock} refuses is an old hello, so it is a second
memory of hellos, and breaks as little as the first where it is absent.
"""
