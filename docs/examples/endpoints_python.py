from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP4ServerEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import react
from twisted.protocols.wire import Echo

from gomux import MuxClientEndpoint, MuxServerEndpoint

PSK = open("gomux.psk").readline().rstrip("\n")


class Hello(Protocol):
    def connectionMade(self):
        self.lost = Deferred()
        print("from", self.transport.getPeer().carrier.host)
        self.transport.write(b"hello")

    def dataReceived(self, data):
        print(data)
        self.transport.loseConnection()

    def connectionLost(self, reason):
        self.lost.callback(None)


async def main(reactor):
    carrier = TCP4ServerEndpoint(reactor, 7000, interface="127.0.0.1")
    server = MuxServerEndpoint(reactor, carrier, PSK)
    port = await server.listen(Factory.forProtocol(Echo))

    carrier = TCP4ClientEndpoint(reactor, "127.0.0.1", 7000)
    client = MuxClientEndpoint(reactor, carrier, PSK)
    for _ in range(3):
        hello = await client.connect(Factory.forProtocol(Hello))
        await hello.lost

    await client.close()
    await port.close()


react(main)
