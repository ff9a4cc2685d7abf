"""
Measure handshakes of TLS 1.3 with a pre-shared key, in memory.  Prints the CPU time of
both sides, in seconds, and the round trips before the client may send data.

This needs Python 3.13 and nothing of the package: L{bench.handshakes} runs it.
"""

from __future__ import annotations

import ssl
import sys
import time

PSK = bytes(range(32))


def contexts() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.verify_mode = ssl.CERT_NONE
    client.set_psk_client_callback(lambda hint: ("me", PSK))  # type: ignore[attr-defined]
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.set_psk_server_callback(lambda identity: PSK)  # type: ignore[attr-defined]
    for context in (client, server):
        context.minimum_version = ssl.TLSVersion.TLSv1_3
    return client, server


def handshake(client: ssl.SSLContext, server: ssl.SSLContext) -> int:
    """
    @return: how many flights there were before the client was done.
    """
    toServer, toClient = ssl.MemoryBIO(), ssl.MemoryBIO()
    near = client.wrap_bio(toClient, toServer)
    far = server.wrap_bio(toServer, toClient, server_side=True)
    flights = 0
    while True:
        for side in (near, far):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                flights += 1
            else:
                if side is near:
                    far.do_handshake()
                    assert near.version() == far.version() == "TLSv1.3"
                    return flights


def main(rounds: int) -> None:
    client, server = contexts()
    flights = handshake(client, server)
    began = time.process_time()
    for _ in range(rounds):
        handshake(client, server)
    print((time.process_time() - began) / rounds, flights / 2)


if __name__ == "__main__":
    main(int(sys.argv[1]))
