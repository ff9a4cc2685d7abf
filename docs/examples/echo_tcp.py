from twisted.internet.defer import Deferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.protocol import Factory
from twisted.internet.task import react
from twisted.protocols.wire import Echo


async def main(reactor):
    endpoint = serverFromString(reactor, "tcp:7000")
    await endpoint.listen(Factory.forProtocol(Echo))
    await Deferred()  # for ever


react(main)
