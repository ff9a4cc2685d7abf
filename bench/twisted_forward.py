"""
Twisted's own port forwarder: what a tunnel costs at least that uses Twisted's
transports, and has neither a mux nor cryptography.
C{python -m bench.twisted_forward TARGET} runs it.
"""

from __future__ import annotations

import sys
from typing import Any

from twisted.internet import reactor as _reactor
from twisted.protocols.portforward import ProxyFactory

reactor: Any = _reactor


def main(target: str) -> None:
    host, _, port = target.rpartition(":")
    factory = ProxyFactory(host, int(port))
    factory.noisy = False
    listener = reactor.listenTCP(0, factory, backlog=1024, interface="127.0.0.1")
    print(f"forwarding 127.0.0.1:{listener.getHost().port}", flush=True)
    reactor.run()


if __name__ == "__main__":
    main(sys.argv[1])
