# -*- test-case-name: gomux.test.test_tap -*-
# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
The guide at the end of C{twistd gomux --help}.
"""

from __future__ import annotations

GUIDE = """
Carries many connections through a single encrypted connection, the mux.

One side accepts the mux with --listen, and the other side connects it with
--connect. Either side can open streams in the mux: with --forward it accepts
connections and carries each as a stream, and the other side connects each
stream to its --target. Both sides need the same pre-shared key:

  (umask 077; python -m gomux genpsk > psk)

Port 80 of the machine A becomes port 8080 of the machine B:

  A$ twistd gomux --psk-file psk --listen tcp:7000 --target tcp:localhost:80
  B$ twistd gomux --psk-file psk --connect tcp:A:7000 --forward tcp:8080

The same if only B can be reached from outside:

  A$ twistd gomux --psk-file psk --connect tcp:B:7000 --target tcp:localhost:80
  B$ twistd gomux --psk-file psk --listen tcp:7000 --forward tcp:8080

An ENDPOINT is any of Twisted's endpoint strings, such as
tcp:8080:interface=127.0.0.1, unix:/run/app.sock or tls:example.org:443.
Sizes are in bytes, times in seconds, rates in events a second.
"""
