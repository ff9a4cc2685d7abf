from twisted.internet.endpoints import TCP4ClientEndpoint, TCP4ServerEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import react
from twisted.protocols.wire import Echo

from gomux import (
    Keyring,
    MuxClientEndpoint,
    MuxFactory,
    RequestRefused,
)

KEYS = {"alice": "a long random key of alice", "bob": "a long random key of bob"}
MAY_USE = {"alice": {"echo", "admin"}, "bob": {"echo"}}


class Told(Echo):
    def connectionMade(self):
        peer = self.transport.getPeer()
        print(peer.peerName, "uses", peer.service)


async def tryIt(reactor, name, service):
    carrier = TCP4ClientEndpoint(reactor, "127.0.0.1", 7000)
    client = MuxClientEndpoint(reactor, carrier, KEYS[name], service=service)
    try:
        await client.connect(Factory.forProtocol(Protocol))
    except RequestRefused as error:
        print(name, service, error.code)
    await client.close()


async def main(reactor):
    told = Factory.forProtocol(Told)
    muxes = MuxFactory(
        Keyring(KEYS), False, clock=reactor, services={"echo": told, "admin": told}
    )
    muxes.mayUse = lambda peerName, service: service in MAY_USE[peerName]
    carrier = TCP4ServerEndpoint(reactor, 7000, interface="127.0.0.1")
    port = await carrier.listen(muxes)

    for name in ("alice", "bob"):
        for service in ("echo", "admin", "chat"):
            await tryIt(reactor, name, service)

    await port.stopListening()


react(main)
