from twisted.internet.endpoints import TCP4ClientEndpoint, TCP4ServerEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import react
from twisted.protocols.wire import Echo

from gomux import (
    Keyring,
    MuxClientEndpoint,
    MuxServerEndpoint,
    PeerRules,
    RequestRefused,
)

KEYS = {"alice": "a long random key of alice", "bob": "a long random key of bob"}


async def main(reactor):
    keyring = Keyring(KEYS)
    keyring.rules = {
        "alice": PeerRules(maxStreams=3),
        "*": PeerRules(services=("echo",), maxStreams=2, maxMuxes=1),
    }
    carrier = TCP4ServerEndpoint(reactor, 7000, interface="127.0.0.1")
    server = MuxServerEndpoint(reactor, carrier, keyring, service="echo")
    port = await server.listen(Factory.forProtocol(Echo))

    for name in ("alice", "bob"):
        carrier = TCP4ClientEndpoint(reactor, "127.0.0.1", 7000)
        client = MuxClientEndpoint(reactor, carrier, KEYS[name], service="echo")
        for number in range(1, 5):
            try:
                await client.connect(Factory.forProtocol(Protocol))
            except RequestRefused as error:
                print(name, "stream", number, error.code)
        await client.close()

    await port.close()


react(main)
