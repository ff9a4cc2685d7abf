from twisted.internet.endpoints import TCP4ClientEndpoint, TCP4ServerEndpoint
from twisted.internet.protocol import Factory
from twisted.internet.task import react
from twisted.protocols.wire import Echo

from gomux import MuxFactory, Session

PSK = open("gomux.psk").readline().rstrip("\n")


async def main(reactor):
    # The side behind the firewall connects, and serves the other side's streams.
    inside = MuxFactory(PSK, True, Factory.forProtocol(Echo), clock=reactor)

    carrier = TCP4ServerEndpoint(reactor, 7000, interface="127.0.0.1")
    listener = await Session.server(reactor, carrier, PSK)
    carrier = TCP4ClientEndpoint(reactor, "127.0.0.1", 7000)
    mux = await carrier.connect(inside)

    session = await listener.accept()
    conn = await session.openStream()
    await conn.write(b"hello, inside")
    print(await conn.read())

    await mux.close()
    await listener.close()


react(main)
