# -*- test-case-name: gomux.test.test_tap -*-
# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
The help of C{twistd gomux}: the order of the options, and the guide.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from inspect import getmembers

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

A SERVICE is a name that both sides give, so that one mux carries several:

  A$ twistd gomux --psk-file psk --target web=tcp:localhost:80 \\
       --target ssh=tcp:localhost:22
  B$ twistd gomux --psk-file psk --connect tcp:A:7000 --forward web=tcp:8080 \\
       --forward ssh=tcp:2222

A PEER is a name in a --psk-file with several keys.

If it does not work, this says whether A can be reached and has the same key:

  B$ python -m gomux ping gomux:tcp:A:7000:pskFile=psk

An ENDPOINT is any of Twisted's endpoint strings, such as
tcp:8080:interface=127.0.0.1, unix:/run/app.sock or tls:example.org:443.
Sizes are in bytes, times in seconds, rates in events a second.
"""

#: The first options in the help, in this order.  The others follow them, and then the
#: limits.
FIRST = (
    *("psk", "psk-file", "listen", "connect", "forward", "target", "factory"),
    *("allow", "status", "status-host", "access-log", "config", "check"),
    *("strict", "strict-peer", "context", "strict-clock", "allow-self"),
    *("end-revoked", "allow-short-psk", "psk-file-insecure"),
)

_option = re.compile(r"(?m)^  (?:-.,|   ) --([a-z-]+)")


def arrange(usage: str, limits: Collection[str]) -> str:
    """
    Put the options in an order that says what they are for.

    @param usage: the help, with the options in the order of their names.
    @param limits: the names of the options that are limits.
    @return: the help, with the guide.
    """
    head, *parts = _option.split(usage)
    starts = [match.start() for match in _option.finditer(usage)]
    texts = {
        name: usage[start:end]
        for name, start, end in zip(
            parts[::2], starts, [*starts[1:], len(usage)], strict=True
        )
    }
    named = [name for name in texts if name not in FIRST and name not in limits]
    return "".join(
        (
            head,
            *(texts[name] for name in (*FIRST, *named)),
            GUIDE,
            "\nLimits:\n",
            *(text for name, text in texts.items() if name in limits),
        )
    )


def repeatable(options: type) -> list[str]:
    """
    @param options: a class of options.
    @return: the names of those that can be given several times, by their help.
    """
    return [
        name.removeprefix("opt_").replace("_", "-")
        for name, method in getmembers(options)
        if name.startswith("opt_") and "several times" in (method.__doc__ or "")
    ]
