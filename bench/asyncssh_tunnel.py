"""
A tunnel with asyncssh.  C{python -m bench.asyncssh_tunnel listen} runs its server, and
C{python -m bench.asyncssh_tunnel forward HOST:PORT TARGET} its client.
"""

from __future__ import annotations

import asyncio
import sys

import asyncssh


class Server(asyncssh.SSHServer):
    """
    Allows every client, and every forwarding.
    """

    def begin_auth(self, username: str) -> bool:
        return False

    def connection_requested(self, *arguments: object) -> bool:
        return True


async def listen() -> None:
    key = asyncssh.generate_private_key("ssh-ed25519")
    server = await asyncssh.listen(
        "127.0.0.1", 0, server_factory=Server, server_host_keys=[key]
    )
    print(f"listening 127.0.0.1:{server.get_port()}", flush=True)
    await server.wait_closed()


async def forward(address: str, target: str) -> None:
    host, _, port = address.rpartition(":")
    there, _, targetPort = target.rpartition(":")
    async with asyncssh.connect(host, int(port), known_hosts=None, config=None) as ssh:
        listener = await ssh.forward_local_port("127.0.0.1", 0, there, int(targetPort))
        print(f"forwarding 127.0.0.1:{listener.get_port()}", flush=True)
        await listener.wait_closed()


if __name__ == "__main__":
    asyncio.run({"listen": listen, "forward": forward}[sys.argv[1]](*sys.argv[2:]))
